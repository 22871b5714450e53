"""One parsed iii.toml: its tables, the places of its keys, and the errors that point at them.

Owns reading the file, syntax errors and `${VAR}` interpolation. What the keys mean is decided in `keys` and `project`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from iii.config_schema import brief, shown
from iii.engine.config.references import with_values
from iii.engine.config.regular_file import read_regular
from iii.engine.config.toml_positions import MAX_DEPTH, KeyPath, Positions, locate
from iii.errors import ProjectError

# Larger than any file written by hand; a slip (a log, a database) would stall the start.
MAX_SIZE = 1024 * 1024

T = TypeVar("T")

# Python's int() takes 4300 digits.
_LONG_NUMBER = re.compile(r"[0-9][0-9_]{4000,}")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_./")
_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class Document(Struct, frozen=True):
    """The tables of one file. `lookup` returns the value of a `${VAR}`, None for one that is unset."""

    file: str  # as shown in messages
    data: dict[str, Any]
    positions: Positions
    lookup: Callable[[str], str | None]

    def data_at(self, path: KeyPath) -> Any:
        """Return the value that is written there, an empty table if there is none."""
        value: Any = self.data
        for part in path:
            value = value.get(part, {})
        return value


class Place(Struct, frozen=True):
    """Where a value is written; makes the errors about it. The empty path is the whole file."""

    path: KeyPath
    document: Document

    @property
    def name(self) -> str:
        return brief(str(self.path[-1]))

    @property
    def dotted(self) -> str:
        """The names of the key and of the tables it is in."""
        return ".".join(brief(str(part)) for part in self.path)

    @property
    def line(self) -> int:
        return self.document.positions.of(self.path).line

    def inside(self, *parts: str | int) -> Place:
        """Return the place of one item or one key of the value, or one deeper in it."""
        return Place((*self.path, *parts), self.document)

    def error(self, message: str, hint: str = "") -> ProjectError:
        """Return an error that points here."""
        line, column = self.document.positions.of(self.path)
        return ProjectError(message, file=self.document.file, line=line, column=column, key=self.dotted, hint=hint)

    def refusal(self, wanted: str, value: Any, hint: str = "") -> ProjectError:
        """Return the error for a value that is not `wanted`."""
        return self.error(f"{self.name} must be {wanted}, got {shown(value)}", hint)

    def typed(self, value: Any, type_: type[T], wanted: str) -> T:
        """Return a value of this type; raise the error for any other, which is not `wanted`."""
        if not isinstance(value, type_):
            raise self.refusal(wanted, value)
        return value

    def interpolated(self, text: str) -> str:
        """Return `text` with the values of the variables that it refers to. Raises ProjectError."""

        def refuse(message: str, hint: str) -> ProjectError:
            name = self.dotted if hint else self.name
            return self.error(f"{name}: {message}", hint)

        return with_values(text, self.document.lookup, refuse)


def read_document(path: Path, lookup: Callable[[str], str | None]) -> Place:
    """Read and parse `path`, which messages call by its name without folders. Raises ProjectError."""
    text = _text_of(path)
    positions = locate(text)
    if (deep := positions.too_deep) is not None:
        message = f"keys and values are nested deeper than {MAX_DEPTH}"
        raise ProjectError(message, file=path.name, line=deep.line, column=deep.column, hint="make them flatter")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, path.name, positions) from None
    except ValueError:  # of int(): the only thing in a TOML text that Python's own limits refuse
        place = _LONG_NUMBER.search(text)
        line, column = _place_of(text, place.start() if place else 0)
        message = "a whole number has more than 4000 digits"
        raise ProjectError(message, file=path.name, line=line, column=column) from None
    return Place((), Document(path.name, data, positions, lookup))


def _text_of(path: Path) -> str:
    file = path.name
    try:
        raw = read_regular(path, MAX_SIZE)
    except FileNotFoundError:
        raise ProjectError("no such file", file=file, hint="make one with `iii init`") from None
    except OSError as error:
        raise ProjectError(f"cannot be read: {error.strerror}", file=file) from None
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        message = f"the byte 0x{raw[error.start]:02x} is not UTF-8"
        raise ProjectError(message, file=file, line=line, column=column) from None


def _syntax_error(message: str, text: str, file: str, positions: Positions) -> ProjectError:
    if positions.repeats and ("twice" in message or "overwrite" in message or "mutate" in message):
        path, first, second = positions.repeats[0]
        name = ".".join(str(part) for part in path)
        repeated = f"`{name}` is written twice, first in line {first.line}"
        return ProjectError(repeated, file=file, line=second.line, column=second.column, key=name)
    place = _SYNTAX_PLACE.search(message)
    line, column = _place_of(text, len(text))
    if place and place[1]:
        line, column = int(place[1]), int(place[2])
    reason = _SYNTAX_PLACE.sub("", message)
    if reason == "Invalid value":
        rest = text.split("\n")[line - 1][column - 1 :].partition("#")[0].strip()
        if not rest:
            reason = "there is no value behind the `=`"
        elif rest[0] in _LETTERS:
            reason = f"`{brief(rest)}` is no value; text stands in quotes"
    return ProjectError(reason[:1].lower() + reason[1:], file=file, line=line, column=column)


def _place_of(text: str, offset: int) -> tuple[int, int]:
    """Return the line and the column of an offset, both from 1."""
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1
