"""The log files of `.iii/logs` as rows in the order of time, read while an engine writes and rotates them.

Needs no engine: `Tail.rows()` returns the rows that have come since the last time, so that following is repeating.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

Row = dict[str, Any]

# The engine keeps NAME.log, NAME.log.1 (older) and NAME.log.2 (oldest).
_ENDS = (".2", ".1", "")
LEVELS = ("debug", "info", "warn", "error")
_LEVEL_OF_WORD = {
    **{level: level for level in LEVELS},
    "trace": "debug",
    "warning": "warn",
    "critical": "error",
    "fatal": "error",
}
# `WARNING:root:text`, `2026-01-01 12:00:00 ERROR text`: programs name the level near the start, in capitals.
_WORD = re.compile(r"\b(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\b")
_NEAR = 60
_EXCEPTION = re.compile(r"Traceback \(most recent call last\)|[\w.]*(?:Error|Exception)(?: \[\w+\])?(?::|$)")
# Lines that go on with a traceback: of frames, of the line itself, and those between two tracebacks of one error.
_INSIDE = re.compile(r"\s|$|During handling of the above|The above exception was|Traceback \(")


class Tail:
    """One worker's files, from the oldest line on; every call of `rows` continues where the last one ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._identity = (0, 0)
        self._partial = b""
        self._tracebacks: dict[object, bool] = {}  # by process: whether its last line was part of a traceback

    def rows(self) -> Iterator[Row]:
        """Yield the complete lines that were not there before."""
        while self._file is not None or self._open(next(iter(self._chain()), None)):
            yield from self._unread()
            # The file that follows the open one; the oldest if the open one has been rotated away.
            chain = self._chain()
            places = [number for number, path in enumerate(chain) if _identity(path) == self._identity]
            place = places[0] + 1 if places else 0
            if place >= len(chain):
                return
            yield from self._unread()  # what came between the last read and the rotation
            self.close()
            self._open(chain[place])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._partial = b""

    def _unread(self) -> Iterator[Row]:
        assert self._file is not None
        for line in self._file:
            if not line.endswith(b"\n"):
                self._partial += line
                return
            row = row_of(self._partial + line)
            self._partial = b""
            if row is not None:
                yield self._with_level(row)

    def _with_level(self, row: Row) -> Row:
        """Return the row with its level: every line of a traceback is as grave as the error at its end."""
        text, process = str(row["text"]), (row.get("instance"), row.get("generation"))
        was_inside = self._tracebacks.get(process, False)
        begins = text.startswith(("Traceback (most recent call last)", '  File "'))
        is_inside = begins or (was_inside and _INSIDE.match(text) is not None)
        self._tracebacks[process] = is_inside
        if is_inside or (was_inside and _EXCEPTION.match(text)):
            return {**row, "level": "error"}
        return row

    def _open(self, path: Path | None) -> bool:
        try:
            self._file = path.open("rb") if path is not None else None
        except OSError:
            return False
        if path is not None:
            self._identity = _identity(path) or (0, 0)
        return self._file is not None

    def _chain(self) -> list[Path]:
        """Return the files that are there, the oldest first."""
        paths = [self._path.with_name(self._path.name + end) for end in _ENDS]
        return [path for path in paths if path.exists()]


class Tails:
    """The logs of the named workers, or of all, also of those that come later."""

    def __init__(self, folder: Path, names: Sequence[str] = ()) -> None:
        self._folder = folder
        self._names = names
        self._tails: dict[str, Tail] = {}

    @property
    def known(self) -> list[str]:
        """The workers that have a log."""
        return sorted({path.name.partition(".log")[0] for path in self._folder.glob("*.log*")})

    def rows(self) -> Iterator[Row]:
        """Yield what is new, by time."""
        for name in self._names or self.known:
            self._tails.setdefault(name, Tail(self._folder / f"{name}.log"))
        return heapq.merge(*(tail.rows() for tail in self._tails.values()), key=lambda row: str(row["time"]))

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()


def row_of(line: bytes) -> Row | None:
    """Return the row of a line with its `level`; None for a line that the engine has not written."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not {"time", "worker", "text"} <= row.keys():
        return None
    level = row.get("level")
    return {**row, "level": level if level in LEVELS else level_of(str(row["text"]), str(row.get("stream")))}


def level_of(text: str, stream: str) -> str:
    """Return how grave a line is: what the line itself says, else `info`; the engine's own remarks are warnings."""
    if text.startswith("{"):  # a line of the SDK's logger is an object
        with contextlib.suppress(ValueError):
            record = json.loads(text)
            level = _LEVEL_OF_WORD.get(str(record.get("level")).lower()) if isinstance(record, dict) else None
            if level is not None:
                return level
    word = _WORD.search(text, 0, _NEAR)
    if word:
        return _LEVEL_OF_WORD[word[1].lower()]
    if _EXCEPTION.match(text):
        return "error"
    return "warn" if stream == "engine" else "info"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
