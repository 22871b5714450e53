"""The outgoing messages of one socket: a bounded queue, and the task that writes them.

A socket that does not read fills its queue. Then it is closed with 1013, before it fills the memory; other sockets are
not affected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

MAX_ITEMS = 1000
MAX_BYTES = 8 * 1024 * 1024
TRY_AGAIN_LATER = 1013


class Socket(Protocol):
    """The part of a WebSocket that is written to; `send` returns when the socket takes more."""

    async def send(self, message: str, /) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


class Subscriber:
    """The queue of one socket. `context`: what the auth function returned for it."""

    def __init__(self, socket: Socket, context: object = None) -> None:
        self.context = context
        self._socket = socket
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._overrun = asyncio.Event()

    @property
    def is_cut(self) -> bool:
        return self._overrun.is_set()

    def put(self, message: bytes) -> None:
        """Queue a message; over the bounds, drop the queue and have the socket closed."""
        if self.is_cut:
            return
        self._queue.append(message)
        self._bytes += len(message)
        self._filled.set()
        if len(self._queue) > MAX_ITEMS or self._bytes > MAX_BYTES:
            self._queue.clear()
            self._overrun.set()

    async def write(self) -> None:
        """Write queued messages for ever. Raises the error of the connection when it is closed."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                message = self._queue.popleft()
                self._bytes -= len(message)
                await self._socket.send(message.decode())

    async def cut(self) -> None:
        """Wait until the socket has fallen behind, then close it."""
        await self._overrun.wait()
        await self._socket.close(TRY_AGAIN_LATER, "slow_consumer")
