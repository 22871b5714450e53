"""Sockets that accept connections: the unix socket of local peers, and TCP for WebSockets.

An acceptor hands each accepted socket over and says nothing about what is spoken on it. Where it listens is decided
by `iii/engine/boot/run_dir.py` (the unix socket's path) and `tcp_address.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

_UCRED = struct.Struct("3i")  # pid, uid, gid
# Pause after a failed accept: without free descriptors, the event loop would spin on the same event.
_RETRY_INTERVAL = 0.1


class Acceptor:
    """Accepts connections on a listening socket and owns it.

    `is_allowed` decides about each accepted socket before it is handed to `on_accept`; a refused one is closed.
    """

    def __init__(
        self,
        listening: socket.socket,
        on_accept: Callable[[socket.socket], None],
        is_allowed: Callable[[socket.socket], bool] = lambda _: True,
    ) -> None:
        self._socket = listening
        self._on_accept = on_accept
        self._is_allowed = is_allowed
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connected, _ = self._socket.accept()
        except BlockingIOError:  # the client has left again
            return
        except OSError:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.call_later(_RETRY_INTERVAL, self._resume)
            return
        connected.setblocking(False)
        if self._is_allowed(connected):
            self._on_accept(connected)
        else:
            connected.close()

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting, and remove the file of a unix socket."""
        if self._socket.fileno() < 0:
            return
        address = self._socket.getsockname()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if isinstance(address, str):
            with contextlib.suppress(OSError):
                Path(address).unlink()


def accept_local_peers(path: Path, on_accept: Callable[[socket.socket], None]) -> Acceptor:
    """Listen on a unix socket at `path` for processes of the same user."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # mode 0600 from the start: a chmod afterwards would leave a gap
    try:
        listening.bind(str(path))
    finally:
        os.umask(mask)
    listening.setblocking(False)
    listening.listen(256)
    return Acceptor(listening, on_accept, _is_same_user)


def _is_same_user(connected: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # elsewhere the modes of the socket and its folder keep other users out
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return bool(_UCRED.unpack(credentials)[1] == os.getuid())
