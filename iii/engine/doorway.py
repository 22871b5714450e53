"""A TCP socket that accepts. Hands accepted sockets over; says nothing about what they speak.

Where it listens is `address.py`'s. Made by the gateway.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from iii.engine.address import Address

# Out of descriptors: wait instead of spinning on the same event.
_PAUSE = 0.1


class Doorway:
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
