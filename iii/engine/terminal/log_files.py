"""What workers write, kept: one JSON lines file a worker in `.iii/logs`, and whoever follows.

A full disk, a removed folder or a read-only one loses lines, which are counted, and never disturbs the
engine; the file is opened again with the next line. `iii logs` reads the files.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iii.engine.supervision.reports import LogLine

MAX_FILE = 10 * 1024 * 1024  # bytes, then the file is rotated
MAX_FILES = 3  # with the current one
RETRY = 5.0  # seconds after a failed write until the disk is tried again

Follower = Callable[[LogLine], None]


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
    return json.dumps(fields, separators=(",", ":"))


class LogFile:
    """One file that grows to `limit` bytes, then becomes NAME.1, which becomes NAME.2. Raises OSError."""

    def __init__(self, path: Path, *, limit: int = MAX_FILE, files: int = MAX_FILES) -> None:
        self._path = path
        self._limit = limit
        self._files = files
        self._fd = -1
        self._size = 0

    def append(self, text: str) -> None:
        """Write one line. It is in the file when this returns."""
        data = text.encode() + b"\n"
        if self._fd >= 0 and (self._size + len(data) > self._limit or not self._is_there()):
            self._rotate_or_reopen()
        if self._fd < 0:
            self._open()
        self._size += os.write(self._fd, data)

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _is_there(self) -> bool:
        return os.fstat(self._fd).st_nlink > 0

    def _rotate_or_reopen(self) -> None:
        is_there = self._is_there()
        self.close()
        if not is_there:
            return
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number)
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._numbered(number - 1), older)

    def _numbered(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")


class LogBook:
    """The log files of all workers, and those who follow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, LogFile] = {}
        self._followers: list[Follower] = []
        self._silent_until = 0.0
        self.dropped = 0  # lines that could not be written

    def __repr__(self) -> str:
        return f"<LogBook {len(self._files)} files, {len(self._followers)} followers, {self.dropped} dropped>"

    def follow(self, follower: Follower) -> Callable[[], None]:
        """Call `follower` with every line from now on; return what ends that."""
        self._followers.append(follower)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._followers.remove(follower)

        return end

    def write(self, line: LogLine) -> None:
        """Keep one line. Never raises for the disk's sake."""
        for follower in tuple(self._followers):
            follower(line)
        if time.monotonic() < self._silent_until:
            self.dropped += 1
            return
        try:
            self._file(line.run.worker).append(to_json(line))
        except OSError:
            self.dropped += 1
            self._silent_until = time.monotonic() + RETRY

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()

    def _file(self, worker: str) -> LogFile:
        if worker not in self._files:
            self._files[worker] = LogFile(self._folder / f"{worker}.log")
        return self._files[worker]
