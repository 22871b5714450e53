"""The routing table: which function answers a method and a path, and what paths mean. Pure.

A tree over segments. At each position a literal beats a parameter and a parameter beats a wildcard; where the better
branch leads nowhere the next one is tried. The table and the handler see the same segments of a URL, so nothing can be
matched as one path and handled as another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import unquote_to_bytes

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_BRACES = re.compile(r"\{(\*?)(.*)\}\Z")
# What a client has to percent-encode; `\` too, which browsers turn into `/`. Browsers leave `|` and `^` as they are.
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\uffff\"<>\\`{}]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DOTS = frozenset({".", ".."})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Kind(Enum):
    """What a segment of a pattern matches: itself, any one segment, or all that follow."""

    LITERAL = "literal"
    PARAMETER = "parameter"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a pattern: `text` is the literal, or the name under which the value is handed on."""

    kind: Kind
    text: str


class BadPath(ValueError):
    """A URL's path that no client in order sends: bad escapes, NUL, bytes that are not UTF-8, `..`."""


def parse_pattern(path: str) -> tuple[Segment, ...]:
    """Return the segments of `users/:id`, `/files/*rest`, or the same with `{id}` and `{*rest}`.

    The leading slash is optional; a slash at the end is a segment of its own. ValueError says what is wrong.
    """
    parts = path.removeprefix("/").split("/")
    segments = tuple(map(_parse_segment, parts))
    if "" in parts[:-1]:
        raise ValueError(f"api_path has an empty segment: {path!r}")
    if not _DOTS.isdisjoint(parts):
        raise ValueError(f"api_path must not have the segments . and ..: {path!r}")
    if any(segment.kind is Kind.REST for segment in segments[:-1]):
        raise ValueError(f"a wildcard takes all that follows and must come last in api_path: {path!r}")
    names = [segment.text for segment in segments if segment.kind is not Kind.LITERAL]
    if len(set(names)) != len(names):
        raise ValueError(f"api_path names a parameter twice: {path!r}")
    return segments


def _parse_segment(part: str) -> Segment:
    braces = _BRACES.match(part)
    if braces:
        return _named(Kind.REST if braces[1] else Kind.PARAMETER, braces[2], part)
    if part.startswith(":"):
        return _named(Kind.PARAMETER, part[1:], part)
    if part.startswith("*"):
        return _named(Kind.REST, part[1:] or "rest", part)
    if "*" in part or "{" in part or "}" in part:
        raise ValueError(f"a parameter fills a whole segment of api_path, as :name or {{name}}; got {part!r}")
    return Segment(Kind.LITERAL, part)


def _named(kind: Kind, name: str, part: str) -> Segment:
    if not _NAME.match(name):
        raise ValueError(f"a parameter of api_path needs a name of letters, digits, _ and -; got {part!r}")
    return Segment(kind, name)


def split_path(raw: str) -> list[str]:
    """Return the decoded segments of a URL's path as it was sent; `%2F` stays inside its segment.

    BadPath when it cannot be read in one way only.
    """
    if _UNSAFE.search(raw):
        raise BadPath("the path holds characters that must be percent-encoded")
    parts = raw.removeprefix("/").split("/")
    if "%" in raw:
        parts = [_decode(part) for part in parts]
    # Clients resolve these before they send. A handler that joins a parameter to a folder must never meet one.
    if not _DOTS.isdisjoint(parts) or ("%" in raw and not _DOTS.isdisjoint("/".join(parts).split("/"))):
        raise BadPath("the path holds the segment . or ..")
    return parts


def _decode(part: str) -> str:
    if _BAD_ESCAPE.search(part):
        raise BadPath("the path has a % without two hexadecimal digits")
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise BadPath("the path is not UTF-8") from None
    if _CONTROL.search(text):
        raise BadPath("the path holds a control character")
    return text


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
