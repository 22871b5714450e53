"""The unix socket of a running engine: local peers, the command line first of all.

Where it lies is `private.py`'s; its mode is 0600, and the kernel must say that the other end is the same user.
Accepts; what to do with a connection is the composition root's.

MERGED: A TCP socket that accepts. Hands accepted sockets over; says nothing about what they speak.

Where it listens is `address.py`'s. Made by the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from iii.engine.transport.tcp_address import Address

_UCRED = struct.Struct("3i")  # pid, uid, gid


class UnixAcceptor:
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


# Out of descriptors: wait instead of spinning on the same event.
_PAUSE = 0.1


class TcpAcceptor:
    """Accepts connections on one address."""

    def __init__(self, address: Address, on_accept: Callable[[socket.socket], None]) -> None:
        self.address = address
        self._socket = address.socket
        self._on_accept = on_accept
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connected, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.call_later(_PAUSE, self._resume)
            return
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_accept(connected)

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Accept nothing more."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
