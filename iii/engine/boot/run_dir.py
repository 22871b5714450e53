"""The project's `.iii/` folder: its modes, the lock that keeps engines apart, and the files of a running one.

Whether an engine runs is told by locks, never by the existence of a file: the kernel drops a lock with the process,
however it ends. One lock is on the project's folder itself, because `.iii` may be deleted under a running engine; the
other is on `.iii/run/lock`, which also says the engine's pid. `.iii/run/` (0700) holds as well engine.json, the
engine's socket and its token: 256 random bits that every engine makes anew. A program that can read the token may
connect to the engine's WebSocket listener.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iii.engine.config.json_schema import IGNORED
from iii.engine.config.regular_file import open_regular
from iii.errors import AlreadyRunning, ProjectError

# `sun_path` holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_MAX_PATH = 103
_TOKEN = "token"  # the file's name
# Commands hold a lock for microseconds to see whether an engine has it: tried so often, with so many seconds between.
LOCK_ATTEMPTS = 5
LOCK_INTERVAL = 0.01


class RunDir:
    """`.iii/run/` of one running engine. Holds the locks from `claim` to `release`."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "run"
        self._state_dir = state_dir
        self._lock_fd = -1
        self._folder_fd = -1

    def claim(self) -> None:
        """Take the locks and make the folders; nothing is written before the locks are held and the folders are ours.

        Raises `AlreadyRunning` with the pid of the engine that holds a lock, `ProjectError` for a folder that cannot be
        had.
        """
        folder = self._state_dir.parent
        try:
            self._folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._lock(self._folder_fd, folder)
            make_private(self._state_dir)
            make_private(self.path)
            ignore = self._state_dir / ".gitignore"
            if not ignore.exists():
                write_private(ignore, IGNORED)
            self._lock_fd = open_regular(self.path / "lock", os.O_RDWR | os.O_CREAT)
            self._lock(self._lock_fd, folder)
            os.ftruncate(self._lock_fd, 0)
            os.write(self._lock_fd, str(os.getpid()).encode())
        except OSError as error:
            raise unwritable(self._state_dir, error) from None

    def _lock(self, fd: int, folder: Path) -> None:
        for attempt in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # A command that asks for the holder has the lock for a moment.
                if attempt + 1 < LOCK_ATTEMPTS:
                    time.sleep(LOCK_INTERVAL)
            except OSError:
                return  # a file system without locks on folders, such as NFS
            else:
                return
        holder = lock_holder(self._state_dir)
        who = f" (pid {holder})" if holder else ""
        raise AlreadyRunning(f"iii is already running in {folder}{who}") from None

    def is_intact(self) -> bool:
        """Whether the lock that is held is still the file at its path: the user has not removed or replaced `.iii`."""
        if self._lock_fd < 0:
            return False
        held = os.fstat(self._lock_fd)
        try:
            there = (self.path / "lock").lstat()
        except OSError:
            return False
        return (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino)

    def announce(self, facts: Mapping[str, Any]) -> None:
        """Write engine.json, which tells the command line where the engine is."""
        write_private(self.path / "engine.json", json.dumps(facts))

    def release(self) -> None:
        """Take the announcement back and drop the locks."""
        if self._lock_fd >= 0:
            if self.is_intact():  # else another engine may have announced itself there
                with contextlib.suppress(OSError):
                    (self.path / "engine.json").unlink()
            os.close(self._lock_fd)
            self._lock_fd = -1
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd = -1


def lock_holder(state_dir: Path) -> int | None:
    """Return the pid of the engine that runs this project, None if there is none, whatever the files say."""
    with contextlib.suppress(OSError):
        fd = open_regular(state_dir / "run" / "lock", os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.read(fd, 64).strip()
            if written.isdigit():
                return int(written)
        finally:
            os.close(fd)
    return _holder_of_folder(state_dir.parent)


def _holder_of_folder(folder: Path) -> int | None:
    """Return the pid of the engine that holds the lock on the project's folder, as far as the kernel tells (Linux).

    Lines are `1: FLOCK  ADVISORY  WRITE 4242 fd:01:131 0 EOF`: pid, device in hexadecimal, inode.
    """
    try:
        status, locks = folder.stat(), Path("/proc/locks").read_text("ascii")
    except OSError:
        return None
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in locks.splitlines():
        words = line.split()
        if words[1:2] == ["FLOCK"] and words[3:4] == ["WRITE"] and words[5:6] == [place]:
            return int(words[4]) if int(words[4]) > 0 else None
    return None


def unwritable(path: Path, error: OSError) -> ProjectError:
    """Return the error for a part of `.iii` that cannot be written."""
    reason = error.strerror or str(error)
    return ProjectError(
        f"{error.filename or path} cannot be written: {reason}",
        hint="the engine keeps its state there: make it a writable folder of yours with room on the disk",
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, in one step: a reader sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "w", encoding="utf-8") as stream:
            stream.write(text)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


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
    if stat.S_IMODE(status.st_mode) != 0o700:
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
