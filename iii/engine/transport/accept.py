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
    """Accepts connections on a listening socket, which it owns, and hands each accepted socket to `on_accept`."""

    def __init__(self, listening: socket.socket, on_accept: Callable[[socket.socket], None]) -> None:
        self._socket = listening
        self._on_accept = on_accept
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
        self._on_accept(connected)

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

    def accept_same_user(connected: socket.socket) -> None:
        if hasattr(socket, "SO_PEERCRED"):  # elsewhere the modes of the socket and its folder keep other users out
            credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            if _UCRED.unpack(credentials)[1] != os.getuid():
                connected.close()
                return
        on_accept(connected)

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
    return Acceptor(listening, accept_same_user)
