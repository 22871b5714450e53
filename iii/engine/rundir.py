"""The project's `.iii/` folder: its modes, the lock that keeps engines apart, and the file that tells where one runs.

Whether an engine runs is told by a lock, never by the existence of a file: the kernel drops the lock with the
process, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iii.engine.private import make_private
from iii.errors import AlreadyRunning


class RunDir:
    """`.iii/run/` of one running engine. Holds the lock from `claim` to `release`."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "run"
        self._state_dir = state_dir
        self._lock_fd = -1

    def claim(self) -> None:
        """Make the folders and take the lock. Raises `AlreadyRunning` with the pid of who holds it."""
        make_private(self._state_dir)
        make_private(self.path)
        ignore = self._state_dir / ".gitignore"
        if not ignore.exists():
            write_private(ignore, "*\n")
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 64).decode(errors="replace").strip()
            os.close(fd)
            who = f" (pid {holder})" if holder else ""
            raise AlreadyRunning(f"iii is already running in {self._state_dir.parent}{who}") from None
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._lock_fd = fd

    def announce(self, facts: Mapping[str, Any]) -> None:
        """Write engine.json, which tells the command line where the engine is."""
        write_private(self.path / "engine.json", json.dumps(facts))

    def release(self) -> None:
        """Take the announcement back and drop the lock."""
        if self._lock_fd >= 0:
            with contextlib.suppress(OSError):
                (self.path / "engine.json").unlink()
            os.close(self._lock_fd)
            self._lock_fd = -1


def lock_holder(state_dir: Path) -> int | None:
    """Return the pid of the engine that runs this project, None if there is none, whatever the files say."""
    try:
        fd = os.open(state_dir / "run" / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        written = os.read(fd, 64).strip()
        return int(written) if written.isdigit() else None
    else:
        return None
    finally:
        os.close(fd)


def write_private(path: Path, text: str) -> None:
    """Write a file only this user can read, in one step: a reader sees the old or the new one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as stream:
        stream.write(text)
    fresh.replace(path)
