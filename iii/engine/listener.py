"""The unix socket of a running engine: local peers, the command line first of all.

The socket lies in `.iii/run/` (0700) with mode 0600, and the kernel must say that the other end is the same user.
A path too long for a socket address moves to a private runtime directory. Accepts; what to do with a connection is
the composition root's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from iii.errors import ProjectError

# `sun_path` holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_MAX_PATH = 103
_UCRED = struct.Struct("3i")  # pid, uid, gid


def socket_path(run_dir: Path, name: str = "engine.sock") -> Path:
    """Return where the socket goes: in `run_dir`, or, if that path is too long, in a private runtime directory."""
    path = run_dir / name
    if len(os.fsencode(path)) <= _MAX_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:16]
    return _runtime_dir() / f"{digest}.sock"


def _runtime_dir() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "iii" if base else Path(tempfile.gettempdir()) / f"iii-{os.getuid()}"
    make_private(folder)
    return folder


def make_private(folder: Path) -> None:
    """Make a directory that only this user can enter. Raises `ProjectError` if that cannot be had there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        pass  # no directory: told below
    except OSError as error:
        text = f"{folder} cannot be made: {error.strerror}"
        raise ProjectError(text, hint="the engine keeps its state there: make the folder above it writable") from None
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ProjectError(f"{folder} is not a directory of yours", hint="remove it, or set XDG_RUNTIME_DIR")
    folder.chmod(0o700)


class Listener:
    """Accepts local peers of the same user."""

    def __init__(self, path: Path, on_accept: Callable[[socket.socket], None]) -> None:
        self.path = path
        self._on_accept = on_accept
        self._loop = asyncio.get_running_loop()
        self._socket = _bind(path)
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connected, _ = self._socket.accept()
        except OSError:
            # Out of descriptors, or the other end left already: pause instead of spinning on the same event.
            self._loop.remove_reader(self._socket.fileno())
            self._loop.call_later(0.1, self._resume)
            return
        if _is_same_user(connected):
            self._on_accept(connected)
        else:
            connected.close()

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            with contextlib.suppress(OSError):
                self.path.unlink()


def _bind(path: Path) -> socket.socket:
    """Bind with the mode set from the start: a chmod afterwards would leave a gap."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(mask)
    listening.setblocking(False)
    listening.listen(256)
    return listening


def _is_same_user(connected: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # elsewhere the socket's mode and its directory's decide
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return bool(_UCRED.unpack(credentials)[1] == os.getuid())
