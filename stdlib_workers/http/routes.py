"""The routing table: which function answers a method and a path. Pure.

A tree over segments. At each position a literal beats a parameter and a parameter beats a wildcard; where the better
branch leads nowhere the next one is tried. Paths without parameters are found in one lookup, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stdlib_workers.http.patterns import Kind, Segment, parse_pattern

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Route:
    """One binding of a function to a method and a path. ValueError for a `pattern` that is none."""

    id: str
    function_id: str
    method: str
    pattern: str
    namespace: str | None = None
    metadata: Any = None
    condition: str | None = None
    middleware: tuple[str, ...] = ()
    streams: bool = False
    cancels: bool = False
    segments: tuple[Segment, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", parse_pattern(self.pattern))

    def __str__(self) -> str:
        return f"{self.method} /{self.pattern.removeprefix('/')}"


@dataclass(frozen=True, slots=True)
class Match:
    """A route that answers, and what its parameters stand for."""

    route: Route
    params: dict[str, str]


class Conflict(ValueError):
    """A route that would take what another one has."""


@dataclass(slots=True)
class _Node:
    literals: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    rest: _Node | None = None
    routes: dict[str, Route] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.literals or self.parameter or self.rest or self.routes)


class Routes:
    """Routes by id, and found by method and path."""

    def __init__(self) -> None:
        self._by_id: dict[str, Route] = {}
        self._root = _Node()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Route]:
        # A copy: the document is made on another thread than the one that changes the table.
        return iter(tuple(self._by_id.values()))

    def __contains__(self, id: str) -> bool:
        return id in self._by_id

    def __repr__(self) -> str:
        return f"<Routes {len(self)}>"

    def add(self, route: Route) -> None:
        """Add a route, in place of the one with its id. Conflict where another route has its method and path."""
        leaf = self._leaf(route.segments)
        holder = leaf.routes.get(route.method) if leaf else None
        if holder is not None and holder.id != route.id:
            raise Conflict(
                f"{route} of {route.function_id} (trigger {route.id}) conflicts with already-registered route "
                f"{holder} of {holder.function_id} (trigger {holder.id})"
            )
        self.remove(route.id)
        node = self._root
        for segment in route.segments:
            node = _child(node, segment)
        node.routes[route.method] = route
        self._by_id[route.id] = route

    def remove(self, id: str) -> Route | None:
        """Remove a route; an id that nobody knows is no error."""
        route = self._by_id.pop(id, None)
        if route is not None:
            _prune(self._root, route.segments, route.method)
        return route

    def _leaf(self, segments: Sequence[Segment]) -> _Node | None:
        node: _Node | None = self._root
        for segment in segments:
            if node is not None:
                node = _existing(node, segment)
        return node

    def find(self, method: str, path: Sequence[str]) -> Match | set[str]:
        """Return what answers, else the methods that the path has: none for a path that nobody bound.

        A GET route answers HEAD unless a route asks for HEAD itself.
        """
        methods: set[str] = set()
        fallback: Route | None = None
        for node in _leaves(self._root, path, 0):
            route = node.routes.get(method)
            if route is not None:
                return Match(route, _params(route, path))
            if fallback is None and method == "HEAD":
                fallback = node.routes.get("GET")
            methods.update(node.routes)
        return methods if fallback is None else Match(fallback, _params(fallback, path))


def _existing(node: _Node, segment: Segment) -> _Node | None:
    if segment.kind is Kind.LITERAL:
        return node.literals.get(segment.text)
    return node.parameter if segment.kind is Kind.PARAMETER else node.rest


def _child(node: _Node, segment: Segment) -> _Node:
    found = _existing(node, segment)
    if found is None:
        found = _Node()
        if segment.kind is Kind.LITERAL:
            node.literals[segment.text] = found
        elif segment.kind is Kind.PARAMETER:
            node.parameter = found
        else:
            node.rest = found
    return found


def _leaves(node: _Node, path: Sequence[str], depth: int) -> Iterator[_Node]:
    """Every node with routes for the whole path, the most specific first."""
    if depth == len(path):
        if node.routes:
            yield node
        return
    literal = node.literals.get(path[depth])
    if literal is not None:
        yield from _leaves(literal, path, depth + 1)
    if node.parameter is not None and path[depth]:
        yield from _leaves(node.parameter, path, depth + 1)
    # An empty rest is no value: `/files/` is not one of the files.
    if node.rest is not None and path[-1]:
        yield node.rest


def _params(route: Route, path: Sequence[str]) -> dict[str, str]:
    params: dict[str, str] = {}
    for place, segment in enumerate(route.segments):
        if segment.kind is Kind.PARAMETER:
            params[segment.text] = path[place]
        elif segment.kind is Kind.REST:
            params[segment.text] = "/".join(path[place:])
    return params


def _prune(node: _Node, segments: Sequence[Segment], method: str) -> None:
    """Take a route out below `node`, and the nodes that were there for it alone."""
    if not segments:
        node.routes.pop(method, None)
        return
    segment = segments[0]
    child = _existing(node, segment)
    if child is None:
        return
    _prune(child, segments[1:], method)
    if not child.is_empty:
        return
    if segment.kind is Kind.LITERAL:
        del node.literals[segment.text]
    elif segment.kind is Kind.PARAMETER:
        node.parameter = None
    else:
        node.rest = None
