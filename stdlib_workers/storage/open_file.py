"""An open database file: its connection, and the proof before each acknowledgment that the file is still there.

A file that is deleted, renamed or replaced lives on for the process that has it open: its commits succeed and are gone
with the process. So the file and its log are compared with what is at their paths. A connection, and everything here,
is used on the thread that opened it only.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stdlib_workers.storage.commit_mark import CommitMark, LogIndex
from stdlib_workers.storage.errors import FileGone


class _Identity(NamedTuple):
    """Which file is at a path; never given to another file while this process has it open."""

    device: int
    inode: int


class OpenFile:
    """A database that this process has opened and marked as open. `name` is the path that the user knows."""

    def __init__(self, connection: sqlite3.Connection, name: Path, path: Path, mark: CommitMark) -> None:
        self.connection = connection
        self.path = path
        self._name = name
        self._log = log_of(path)
        # Through the user's path, which may be a link that is changed.
        self._watched = [(name, _identity(name)), (self._log, _identity(self._log))]
        self._index = LogIndex(path.with_name(f"{path.name}-shm"))
        self._mark = mark

    def acknowledge(self) -> None:
        """Note that the last commit may be acknowledged. FileGone when it is in a file that nobody can find again."""
        for path, identity in self._watched:
            try:
                found = os.stat(path)
            except FileNotFoundError:
                raise FileGone(f"{path} was deleted or moved away while it was in use") from None
            except OSError as error:
                raise FileGone(f"{path} can no longer be reached: {error.strerror}") from None
            if (found.st_dev, found.st_ino) != identity:
                raise FileGone(f"{path} was replaced by another file while it was in use")
        try:
            self._mark.note(self._index.position())
        except OSError as error:
            raise FileGone(f"{self._name}.mark cannot be written: {error.strerror}") from None

    def truncate_log(self) -> None:
        """Move the whole log into the file, unless a reader from outside needs it."""
        self._mark.clear()
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def log_bytes(self) -> int:
        with suppress(FileNotFoundError):
            return self._log.stat().st_size
        return 0

    def close(self) -> None:
        """Close the file so that it is whole by itself, and can be copied: no log, no mark.

        A reader from outside keeps the log; then the file says that it needs it.
        """
        try:
            self.truncate_log()
            self.connection.execute("UPDATE iii_life SET is_open = 0")
            self.truncate_log()
        finally:
            self.connection.close()
            self._index.close()
            if self._log.exists():
                self._mark.close()
                sys.stderr.write(
                    f"iii: another program has {self._name} open: copy it together with {self._log.name}\n"
                )
            else:
                self._mark.remove()


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def mark_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.mark")


def _identity(path: Path) -> _Identity:
    found = path.stat()
    return _Identity(found.st_dev, found.st_ino)
