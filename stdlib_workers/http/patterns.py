"""A route's path pattern and a URL's path, both as segments. Pure.

Owns what a path means: which forms a pattern has, and how a URL's bytes become the segments that the table and the
handler see. They see the same ones, so nothing can be matched as one path and handled as another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_BRACES = re.compile(r"\{(\*?)(.*)\}\Z")
# What a client has to percent-encode; `\` too, which browsers turn into `/`.
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\uffff\"<>\\^`{|}]")
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
