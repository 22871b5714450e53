"""Accepts connections on a socket that may outlive this process, and ends them in good order.

uvicorn serves each connection; accepting is done here, so that it can begin when the routes are there, pause while a
successor takes over, and end without a request being lost.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from email.utils import formatdate
from time import time
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from stdlib_workers.http.connection import LimitedConnection
from stdlib_workers.http.frames import LimitedSocket
from stdlib_workers.http.turned_away import TurnedAway

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 65
TICK_SECONDS = 1.0
# One WebSocket message.
MAX_MESSAGE = 4 << 20
# A WebSocket whose client answers no ping is gone after twice this.
PING_SECONDS = 20.0
# Each costs a descriptor and some memory; the process has at least half of its descriptors for everything else.
MAX_CONNECTIONS = 4096
# How long a connection that is idle when the end comes may still send its next request.
IDLE_GRACE_SECONDS = 0.2


class Listening:
    """The server side of one socket."""

    def __init__(
        self,
        sock: socket.socket,
        application: Any,
        *,
        connections: int | None = None,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self._socket = sock
        self._limit = connections or connection_limit()
        self._config = Config(
            application,
            interface="asgi3",
            lifespan="off",
            ws=LimitedSocket,
            ws_max_size=MAX_MESSAGE,
            ws_ping_interval=ping_seconds,
            ws_ping_timeout=ping_seconds,
            ws_per_message_deflate=False,  # a small message could unpack to a large one
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._config.timeout_keep_alive = KEEP_ALIVE_SECONDS
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._closes = False

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def socket(self) -> socket.socket:
        """The listening socket, for whoever takes over."""
        return self._socket

    async def accept(self) -> None:
        """Take connections from now on."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            # A duplicate: closing the server must not end the socket.
            self._server = await loop.create_server(self._connect, sock=self._socket.dup(), backlog=BACKLOG)
            self._closes = False
            self._tick()

    def pause(self) -> None:
        """Leave new connections to whoever shares the socket; each open one ends after its next answer."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._closes = True
        self._tick()

    async def close(self, seconds: float) -> None:
        """Accept no more, answer what has begun within `seconds`, close what is idle."""
        self.pause()
        self._socket.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        for connection in list(self._state.connections):
            # A WebSocket never ends by itself; its client connects anew, to whoever accepts now.
            if not isinstance(connection, LimitedConnection):
                connection.shutdown()
        await self._settle(end)
        # Whoever sent its next request before it saw our last answer gets one for it too.
        await asyncio.sleep(min(IDLE_GRACE_SECONDS, max(0.0, end - loop.time())))
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._settle(end)
        if self._ticking is not None:
            self._ticking.cancel()

    async def _settle(self, end: float) -> None:
        """Wait until no request is being served, or it is `end`."""
        loop = asyncio.get_running_loop()
        while self._state.tasks and loop.time() < end:
            await asyncio.wait(self._state.tasks, timeout=end - loop.time())

    def _connect(self) -> asyncio.Protocol:
        if len(self._state.connections) >= self._limit:
            return TurnedAway()
        return LimitedConnection(config=self._config, server_state=self._state, app_state={})

    def _tick(self) -> None:
        """Set the headers of every answer of the next second, and find who is too slow."""
        if self._ticking is not None:
            self._ticking.cancel()
        headers = [(b"date", formatdate(time(), usegmt=True).encode())]
        if self._closes:
            headers.append((b"connection", b"close"))
        self._state.default_headers[:] = headers
        loop = asyncio.get_running_loop()
        self.expire(loop.time())
        self._ticking = loop.call_later(TICK_SECONDS, self._tick)

    def expire(self, now: float) -> None:
        """Refuse whoever has been too slow at `now`, on the loop's clock."""
        for connection in list(self._state.connections):
            if isinstance(connection, LimitedConnection | LimitedSocket):
                connection.expire(now)


def connection_limit() -> int:
    """Return how many connections this process takes."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, descriptors // 2)
