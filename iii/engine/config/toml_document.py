"""One parsed iii.toml: its tables, the places of its keys, and the errors that point at them.

Owns reading the file, syntax errors and `${VAR}` interpolation. What the keys mean is decided in `keys` and `project`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from iii.engine.config.toml_positions import KeyPath, Positions, locate
from iii.errors import ProjectError

# Larger than any file written by hand; a slip (a log, a database) would stall the start.
MAX_SIZE = 1024 * 1024

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-?([^}]*))?\}|\$\{")
_SYNTAX_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class Document(Struct, frozen=True):
    """The tables of one file. `lookup` returns the value of a `${VAR}`, None for one that is unset."""

    file: str  # as shown in messages
    data: dict[str, Any]
    positions: Positions
    lookup: Callable[[str], str | None]

    def error(self, path: KeyPath, message: str, hint: str = "") -> ProjectError:
        """Return the error that points at the key `path`."""
        line, column = self.positions.of(path)
        key = ".".join(str(part) for part in path)
        return ProjectError(message, file=self.file, line=line, column=column, key=key, hint=hint)

    def interpolated(self, text: str, path: KeyPath) -> str:
        """Return `text` with `${VAR}`, `${VAR:default}` and `${VAR:-default}` replaced; `$${` gives `${`.

        Raises ProjectError for a variable that is unset and has no default, without showing any value.
        """

        def replaced(match: re.Match[str]) -> str:
            name, default = match[1], match[2]
            if match[0] == "$${":
                return "${"
            if name is None:
                raise self.error(path, f"{path[-1]}: a variable is written ${{NAME}} or ${{NAME:default}}")
            value = self.lookup(name)
            if value is None and default is None:
                hint = f"set it, or write ${{{name}:default}}"
                raise self.error(path, f"{'.'.join(map(str, path))}: the variable {name} is not set", hint)
            return default if value is None else value

        return _REFERENCE.sub(replaced, text)


def read_document(path: Path, lookup: Callable[[str], str | None]) -> Document:
    """Read and parse `path`, which messages call by its name without folders. Raises ProjectError."""
    text = _text_of(path)
    positions = locate(text)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, path.name, positions) from None
    except RecursionError:
        raise ProjectError("the tables are nested too deeply", file=path.name) from None
    return Document(path.name, data, positions, lookup)


def _text_of(path: Path) -> str:
    file = path.name
    if path.is_dir():
        raise ProjectError("this is a folder, not a file", file=file)
    try:
        raw = path.read_bytes() if path.stat().st_size <= MAX_SIZE else None
    except FileNotFoundError:
        raise ProjectError("no such file", file=file, hint="make one with `iii init`") from None
    except OSError as error:
        raise ProjectError(f"cannot be read: {error.strerror}", file=file) from None
    if raw is None:
        raise ProjectError(f"the file is larger than {MAX_SIZE // 1024} KiB", file=file)
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
    line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
    if place and place[1]:
        line, column = int(place[1]), int(place[2])
    reason = _SYNTAX_PLACE.sub("", message)
    return ProjectError(reason[:1].lower() + reason[1:], file=file, line=line, column=column)
