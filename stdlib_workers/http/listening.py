"""Serves one listening socket with uvicorn, from when the routes are there until the last answer has been sent."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from contextlib import suppress
from typing import Any

import uvicorn

from stdlib_workers.http.connections import PING_SECONDS, Connections

TICK_SECONDS = 1.0
# Each costs a descriptor and some memory; the process has at least half of its descriptors for everything else.
MAX_CONNECTIONS = 4096
# How long a connection that is idle when the end comes may still send its next request.
IDLE_GRACE_SECONDS = 0.2


class Listening:
    """The server side of one socket, which it shares with other generations of the worker."""

    def __init__(
        self,
        sock: socket.socket,
        application: Any,
        *,
        connections: int | None = None,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self._socket = sock
        self.connections = Connections(application, connections or connection_limit(), ping_seconds)
        self._server = uvicorn.Server(self.connections.config)
        self._tasks: list[asyncio.Task[None]] = []
        # Its lines speak of its own affairs: a client that sends nonsense, an answer that we ended on purpose.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)

    @property
    def address(self) -> tuple[str, int]:
        """The host, as a number, and the port that are listened on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    async def accept(self) -> None:
        """Take connections from now on."""
        # A duplicate: uvicorn closes the one it is given.
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._socket.dup()]))
        self._tasks = [serving, asyncio.ensure_future(self._tick())]
        while not self._server.started and not serving.done():
            await asyncio.sleep(0)

    def pause(self) -> None:
        """Leave new connections to whoever shares the socket; each open one ends after its next answer."""
        self.connections.is_leaving = True
        for server in self._server.servers:
            server.close()

    async def close(self, seconds: float) -> None:
        """Accept no more, answer what has begun within `seconds`, close what is idle."""
        if self._tasks:
            self.pause()
            # Whoever sent its next request before it saw our last answer gets one for it too.
            await asyncio.sleep(min(IDLE_GRACE_SECONDS, seconds))
            self.connections.close_unused()
            self.connections.config.timeout_graceful_shutdown = max(0, round(seconds - IDLE_GRACE_SECONDS))
            self._server.should_exit = True
            await self._tasks[0]
            self._tasks[1].cancel()
            with suppress(asyncio.CancelledError):
                await self._tasks[1]
        self._socket.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.connections.expire(asyncio.get_running_loop().time())


def connection_limit() -> int:
    """Return how many connections this process takes."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, descriptors // 2)
