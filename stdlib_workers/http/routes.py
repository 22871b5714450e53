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

from iii.arguments import Arguments
from stdlib_workers.http.replies import Refusal

# Stands for the method of WebSockets; no trigger of type `http` can name it, theirs are upper case.
SOCKET = "websocket"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_MARKS = frozenset("*{}")
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
    is_braced = part.startswith("{") and part.endswith("}")
    name = part[1:-1] if is_braced else part.removeprefix(":")
    is_rest = name.startswith("*") and not part.startswith(":")
    if name == part and not is_rest and _MARKS.isdisjoint(part):
        return Segment(Kind.LITERAL, part)
    name = "rest" if part == "*" else name[1:] if is_rest else name
    if not _NAME.match(name):
        raise ValueError(
            "a parameter of api_path fills a whole segment, as :name, {name} or *name, with a name of letters, digits, "
            f"_ and -; got {part!r}"
        )
    return Segment(Kind.REST if is_rest else Kind.PARAMETER, name)


def split_path(raw: str) -> list[str]:
    """Return the decoded segments of a URL's path as it was sent; `%2F` stays inside its segment.

    Refusal 400 when it cannot be read in one way only: no client in order sends it.
    """
    if _UNSAFE.search(raw):
        raise _bad_path("characters that must be percent-encoded")
    parts = raw.removeprefix("/").split("/")
    whole = raw
    if "%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise _bad_path("a % without two hexadecimal digits")
        try:
            parts = [unquote_to_bytes(part).decode() for part in parts]
        except UnicodeDecodeError:
            raise _bad_path("what is not UTF-8") from None
        whole = "/".join(parts)
        if _CONTROL.search(whole):
            raise _bad_path("a control character")
    # Clients resolve these before they send. A handler that joins a parameter to a folder must never meet one.
    if not _DOTS.isdisjoint(whole.split("/")):
        raise _bad_path("the segment . or ..")
    return parts


def _bad_path(what: str) -> Refusal:
    return Refusal(400, "BAD_PATH", f"the path holds {what}")


@dataclass(frozen=True, slots=True)
class Route:
    """One binding of a function to a method and a path. ValueError for a `pattern` that is none.

    With `arguments` the function gets these instead of the request, and its result is the body of a response with
    `status`; `streams` then says whether it is a generator, None if that is not known. Without them `streams` says
    whether its payload has the two channels.
    """

    id: str
    function_id: str
    method: str
    pattern: str
    namespace: str | None = None
    metadata: Any = None
    condition: str | None = None
    middleware: tuple[str, ...] = ()
    streams: bool | None = False
    cancels: bool = False
    arguments: Arguments | None = None
    status: int | None = None
    segments: tuple[Segment, ...] = field(init=False)
    parameters: tuple[str, ...] = field(init=False)  # their names
    template: str = field(init=False)  # the path as OpenAPI and telemetry write it: `/users/{id}`

    def __post_init__(self) -> None:
        segments = parse_pattern(self.pattern)
        texts = [each.text if each.kind is Kind.LITERAL else f"{{{each.text}}}" for each in segments]
        object.__setattr__(self, "segments", segments)
        names = tuple(each.text for each in segments if each.kind is not Kind.LITERAL)
        object.__setattr__(self, "parameters", names)
        object.__setattr__(self, "template", f"/{'/'.join(texts)}")
        for name, source in () if self.arguments is None else self.arguments.sources.items():
            if source.get("in") == "path" and source.get("name", name) not in names:
                raise ValueError(f"arguments.{name} is in the path, which has no such name: {self.pattern!r}")

    def __str__(self) -> str:
        return f"{self.method} /{self.pattern.removeprefix('/')}"

    def params_in(self, path: Sequence[str]) -> dict[str, str]:
        """Return what the parameters stand for in a path that matches."""
        return {
            segment.text: path[place] if segment.kind is Kind.PARAMETER else "/".join(path[place:])
            for place, segment in enumerate(self.segments)
            if segment.kind is not Kind.LITERAL
        }


class Conflict(ValueError):
    """A route that would take what another one has."""


# A node of the tree: by literal text, `Kind.PARAMETER` or `Kind.REST` the nodes below it, by None its routes by method.
_Node = dict[Any, Any]


class Routes:
    """Routes by id, and found by method and path.

    One thread changes the table while others read it, without a lock: whoever reads takes one step at a time, each an
    operation of one dict, and finds a route or none.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Route] = {}
        self._root: _Node = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Route]:
        # A copy: the table may change meanwhile.
        return iter(tuple(self._by_id.values()))

    def __repr__(self) -> str:
        return f"<Routes {len(self)}>"

    def add(self, route: Route) -> None:
        """Add a route, in place of the one with its id. Conflict where another route has its method and path."""
        keys, leaf = _keys_of(route), self._root
        for key in keys:
            leaf = leaf.get(key, {})
        holder = leaf.get(route.method)
        if holder is not None and holder.id != route.id:
            raise Conflict(
                f"{route} of {route.function_id} (trigger {route.id}) conflicts with already-registered route "
                f"{holder} of {holder.function_id} (trigger {holder.id})"
            )
        self.remove(route.id)
        node = self._root
        for key in keys:
            node = node.setdefault(key, {})
        node[route.method] = route
        self._by_id[route.id] = route

    def remove(self, id: str) -> Route | None:
        """Remove a route, and the nodes that were there for it alone; an id that nobody knows is no error."""
        route = self._by_id.pop(id, None)
        if route is None:
            return None
        keys = [*_keys_of(route), route.method]
        nodes = [self._root]
        for key in keys[:-1]:
            nodes.append(nodes[-1][key])
        for node, key in zip(reversed(nodes), reversed(keys), strict=True):
            del node[key]
            if node:
                break
        return route

    def find(self, method: str, path: Sequence[str]) -> Route | set[str]:
        """Return what answers, else the methods that the path has: none for a path that nobody bound.

        A GET route answers HEAD unless a route asks for HEAD itself.
        """
        methods: set[str] = set()
        fallback: Route | None = None
        for routes in _leaves(self._root, path, 0):
            if route := routes.get(method):
                return route
            if method == "HEAD":
                fallback = fallback or routes.get("GET")
            methods.update(routes)
        return fallback or methods


def _keys_of(route: Route) -> list[Any]:
    return [*(each.text if each.kind is Kind.LITERAL else each.kind for each in route.segments), None]


def _leaves(node: _Node, path: Sequence[str], depth: int) -> Iterator[dict[str, Route]]:
    """Yield the routes by method of every node for the whole path, the most specific first."""
    if depth == len(path):
        if routes := node.get(None):
            yield routes
        return
    if below := node.get(path[depth]):
        yield from _leaves(below, path, depth + 1)
    if path[depth] and (below := node.get(Kind.PARAMETER)):
        yield from _leaves(below, path, depth + 1)
    # An empty rest is no value: `/files/` is not one of the files.
    if path[-1] and (below := node.get(Kind.REST)) and (routes := below.get(None)):
        yield routes
