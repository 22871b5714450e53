"""The log files of workers: one file of JSON lines for each worker in `.iii/logs`, which `iii logs` reads.

A full disk, a removed folder or a read-only one loses lines, which are counted, and never disturbs the engine; the file
is opened again with the next line.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from iii.engine.config.regular_file import open_regular
from iii.engine.supervision.reports import LogLine

MAX_FILE = 10 * 1024 * 1024  # bytes, then the file is rotated
MAX_FILES = 3  # of one worker, the current one included
RETRY_INTERVAL = 5.0  # seconds after a failed write until the disk is tried again
_encode = json.JSONEncoder(separators=(",", ":")).encode

CallLater = Callable[[float, Callable[[], None]], object]


def at_once(_seconds: float, _callback: Callable[[], None]) -> None:
    """Stand in for the `call_later` of an event loop where there is none: what would wait does not."""


def to_json(line: LogLine) -> str:
    """Return a line of the log as one JSON object, pure ASCII: no control character survives in it."""
    fields: dict[str, Any] = {
        "time": datetime.fromtimestamp(line.time, UTC).isoformat(timespec="milliseconds"),
        "worker": line.run.worker,
        "instance": line.run.instance,
        "generation": line.run.generation,
        "stream": line.stream,
        "text": line.text,
    }
    if line.level:
        fields["level"] = line.level
    if line.details:
        fields["details"] = line.details
    return _encode(fields)


class LogFile:
    """One file that grows to `limit` bytes, then becomes NAME.1, which becomes NAME.2. Raises OSError."""

    def __init__(self, path: Path, *, limit: int = MAX_FILE, files: int = MAX_FILES) -> None:
        self._path = path
        self._limit = limit
        self._files = files
        self._fd = -1
        self._size = 0

    def append(self, lines: list[str]) -> None:
        """Write lines. They are in the file when this returns."""
        data = "".join(f"{line}\n" for line in lines).encode()
        if self._fd >= 0:
            is_removed = os.fstat(self._fd).st_nlink == 0
            is_full = self._size + len(data) > self._limit
            if is_removed or is_full:
                self.close()
            if is_full and not is_removed:
                self._rotate()
        if self._fd < 0:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = open_regular(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            self._size = os.fstat(self._fd).st_size
        self._size += os.write(self._fd, data)

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _rotate(self) -> None:
        paths = [self._path, *(self._path.with_name(f"{self._path.name}.{age}") for age in range(1, self._files))]
        for newer, older in reversed(list(pairwise(paths))):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)


class LogBook:
    """The log files of all workers. `call_later(seconds, callback)`: lines of one turn of its loop share a write.

    Where that returns None there is no loop, and each line is written at once.
    """

    def __init__(self, folder: Path, call_later: CallLater = at_once) -> None:
        self._folder = folder
        self._call_later = call_later
        self._files: dict[str, LogFile] = {}
        self._waiting: dict[str, list[str]] = {}
        self._retry_at = 0.0  # monotonic seconds
        self.dropped = 0  # lines that could not be written

    def write(self, line: LogLine) -> None:
        """Write one line to the file of its worker. A line that the disk refuses is counted, not raised."""
        is_first = not self._waiting
        self._waiting.setdefault(line.run.worker, []).append(to_json(line))
        if is_first and self._call_later(0.0, self._flush) is None:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for worker, lines in waiting.items():
            if time.monotonic() < self._retry_at:
                self.dropped += len(lines)
                continue
            if worker not in self._files:
                self._files[worker] = LogFile(self._folder / f"{worker}.log")
            try:
                self._files[worker].append(lines)
            except OSError:
                self.dropped += len(lines)
                self._retry_at = time.monotonic() + RETRY_INTERVAL

    def close(self) -> None:
        """Write what waits, and close the files."""
        self._flush()
        for file in self._files.values():
            file.close()
