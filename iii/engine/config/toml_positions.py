"""Where each key of a TOML text stands, which tomllib does not tell.

`locate(text)` maps key paths to `Position`s and lists the keys that are written twice. It decides nothing and raises
nothing: on a text that tomllib refuses it stops at what it cannot read.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import NamedTuple

from msgspec import Struct, field

KeyPath = tuple[str | int, ...]

# Parts of one path. No file written by hand comes near, and reading one costs as much as its paths are long together.
MAX_DEPTH = 64

_KEY = re.compile(r'"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|[A-Za-z0-9_-]+')
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2}(?!"))|\'\'\'.*?\'\'\'(?:\'{0,2}(?!\'))|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'',
    re.DOTALL,
)
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}#\n]*")


class Position(NamedTuple):
    """A place in a text; both count from 1, in characters."""

    line: int
    column: int


class Repeat(NamedTuple):
    """A table or key written a second time."""

    path: KeyPath
    first: Position
    second: Position


class Positions(Struct, frozen=True):
    """The places of all keys. Items of an array have their index as the last part of the path."""

    keys: dict[KeyPath, Position] = field(default_factory=dict)
    repeats: list[Repeat] = field(default_factory=list)
    too_deep: Position | None = None  # of the first key or value below MAX_DEPTH

    def of(self, path: KeyPath) -> Position:
        """Return the place of `path`, or of its nearest ancestor that is written down."""
        while path and path not in self.keys:
            path = path[:-1]
        return self.keys.get(path, Position(1, 1))


def locate(text: str) -> Positions:
    scanner = _Scanner(text)
    scanner.document()
    return Positions(scanner.keys, scanner.repeats, scanner.too_deep)


class _Scanner:
    """Reads TOML left to right; `self.at` is the offset of what comes next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.keys: dict[KeyPath, Position] = {}
        self.repeats: list[Repeat] = []
        self.too_deep: Position | None = None
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._headers: dict[KeyPath, Position] = {}
        self._arrays: dict[KeyPath, int] = {}  # index of the last item of each array of tables

    def document(self) -> None:
        table: KeyPath = ()
        while self.too_deep is None and self._skip(_BLANK) and self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            elif not self._pair(table):
                return

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return match is not None

    def _position(self, offset: int) -> Position:
        line = bisect_right(self._line_starts, offset)
        return Position(line, offset - self._line_starts[line - 1] + 1)

    def _dotted(self) -> list[tuple[str, Position]]:
        parts: list[tuple[str, Position]] = []
        while self._skip(_SPACE) and (match := _KEY.match(self.text, self.at)):
            parts.append((_unquoted(match[0]), self._position(self.at)))
            self.at = match.end()
            if len(parts) > MAX_DEPTH:
                self.too_deep = parts[-1][1]
                return []
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                break
            self.at += 1
        return parts

    def _header(self) -> KeyPath:
        start = self._position(self.at)
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        path: KeyPath = ()
        parts = self._dotted()
        for number, (name, _) in enumerate(parts, 1):
            path = (*path, name)
            if is_array and number == len(parts):
                self._arrays[path] = self._arrays.get(path, -1) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path])
        if not is_array and path in self._headers:
            self.repeats.append(Repeat(path, self._headers[path], start))
        self._headers.setdefault(path, start)
        for length in range(1, len(path) + 1):  # `[a.b]` also declares `a`
            self.keys.setdefault(path[:length], start)
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end
        return path

    def _pair(self, table: KeyPath) -> bool:
        parts = self._dotted()
        if not parts or not self.text.startswith("=", self.at):
            return False
        path = table
        for name, position in parts:
            path = (*path, name)
            self.keys.setdefault(path, position)
        if self.keys[path] != parts[-1][1]:
            self.repeats.append(Repeat(path, self.keys[path], parts[-1][1]))
        self.at += 1
        self._skip(_SPACE)
        return self._value(path)

    def _value(self, path: KeyPath) -> bool:
        opening = self.text[self.at : self.at + 1]
        if len(path) > MAX_DEPTH:
            self.too_deep = self._position(self.at)
            return False
        if opening in ("[", "{"):
            return self._collection(path, closing="]" if opening == "[" else "}")
        return self._skip(_STRING if opening in ('"', "'") else _SCALAR)

    def _collection(self, path: KeyPath, *, closing: str) -> bool:
        """Read an array or an inline table; return whether it was closed."""
        index = 0
        self.at += 1
        while self._skip(_BLANK) and self.at < len(self.text):
            if self.text.startswith(closing, self.at):
                self.at += 1
                return True
            if closing == "}":
                is_read = self._pair(path)
            else:
                self.keys[*path, index] = self._position(self.at)
                is_read = self._value((*path, index))
                index += 1
            self._skip(_BLANK)
            if is_read and self.text.startswith(",", self.at):
                self.at += 1
            elif not is_read or not self.text.startswith(closing, self.at):
                return False
        return False


def _unquoted(key: str) -> str:
    if key[0] == "'":
        return key[1:-1]
    if key[0] == '"':
        try:
            return str(tomllib.loads(f"key = {key}")["key"])
        except tomllib.TOMLDecodeError:
            return key[1:-1]
    return key
