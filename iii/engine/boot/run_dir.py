"""The project's `.iii/` folder: its modes, the lock that keeps engines apart, and the files of a running one.

Whether an engine runs is told by a lock, never by the existence of a file: the kernel drops the lock with the process,
however it ends. `.iii/run/` (0700) holds the lock, engine.json, the engine's socket and its token: 256 random bits that
every engine makes anew. A program that can read the token may connect to the engine's WebSocket listener.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iii.errors import AlreadyRunning, ProjectError

# `sun_path` holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_MAX_PATH = 103
_TOKEN = "token"  # the file's name


class RunDir:
    """`.iii/run/` of one running engine. Holds the lock from `claim` to `release`."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "run"
        self._state_dir = state_dir
        self._lock_fd = -1

    def claim(self) -> None:
        """Make the folders and take the lock. Raises `AlreadyRunning` with the pid of the engine that holds it."""
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
    """Write a file that only this user can read, in one step: a reader sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as stream:
        stream.write(text)
    draft.replace(path)


def socket_path(run_dir: Path) -> Path:
    """Return where the socket goes: in `run_dir`, or, if that path is too long, in a private runtime directory."""
    path = run_dir / "engine.sock"
    if len(os.fsencode(path)) <= _MAX_PATH:
        return path
    import hashlib  # few paths are so long
    import tempfile

    digest = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:16]
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "iii" if base else Path(tempfile.gettempdir()) / f"iii-{os.getuid()}"
    make_private(folder)
    return folder / f"{digest}.sock"


def make_private(folder: Path) -> None:
    """Make a directory that only this user can enter. Raises `ProjectError` if that cannot be had there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        pass  # something else of this name: refused below
    except OSError as error:
        text = f"{folder} cannot be made: {error.strerror}"
        raise ProjectError(text, hint="the engine keeps its state there: make the folder above it writable") from None
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ProjectError(f"{folder} is not a directory of yours", hint="remove it, or set XDG_RUNTIME_DIR")
    folder.chmod(0o700)


def make_token(run_dir: Path) -> str:
    """Write a new token; return it. Raises `ProjectError` if what is there is no file of this user."""
    path = run_dir / _TOKEN
    try:
        status = path.lstat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            raise ProjectError(f"{path} is not a file of yours", hint="find out who put it there, then remove it")
        path.unlink()
    # As `secrets` does it, which would load hmac and random as well, before the first worker starts.
    token = urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode("ascii")
    write_private(path, token)
    return token


def read_token(run_dir: Path) -> str | None:
    """Return the token of the engine that runs there, None if there is none."""
    try:
        return (run_dir / _TOKEN).read_text(encoding="ascii")
    except FileNotFoundError:
        return None


def remove_token(run_dir: Path) -> None:
    (run_dir / _TOKEN).unlink(missing_ok=True)
