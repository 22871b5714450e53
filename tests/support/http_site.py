"""The http worker's listener and application on the test's own loop, with functions that stand in for the engine."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from stdlib_workers.http.access import AccessLog
from stdlib_workers.http.application import Application
from stdlib_workers.http.listening import Listening
from stdlib_workers.http.options import Options
from stdlib_workers.http.routes import SOCKET, Route, Routes
from tests.support.live_project import BOUND

Function = Callable[[Any], Awaitable[Any]]
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """`GET /a` and the WebSocket `/ws`, both answered by `function`. Use it as an async context."""

    def __init__(self, function: Function, **bounds: Any) -> None:
        async def trigger(call: dict[str, Any]) -> Any:
            return await function(call["payload"])

        routes = Routes()
        routes.add(Route("a", "f::f", "GET", "/a"))
        routes.add(Route("s", "f::f", SOCKET, "/ws"))
        log = AccessLog(is_on=False)
        self.application = Application(trigger, routes, Options(), log)
        bound = socket.create_server(("127.0.0.1", 0))
        self.listening = Listening(bound, self.application, **bounds)
        self._clients: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Served:
        await self.listening.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        for writer in self._clients:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._clients), return_exceptions=True)
        await self.listening.close(1.0)

    @property
    def connections(self) -> Any:
        return self.listening.open

    async def connect(self, receive_buffer: int | None = None) -> Client:
        """Connect; `receive_buffer` bounds what the kernel takes for a client that does not read."""
        plain = socket.socket()
        if receive_buffer:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self.listening.address[1]))
        reader, writer = await asyncio.open_connection(sock=plain)
        self._clients.append(writer)
        return reader, writer

    async def open_websocket(self, receive_buffer: int | None = None) -> Client:
        """Connect to `/ws`, past the handshake."""
        reader, writer = await self.connect(receive_buffer)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: localhost:{self.listening.address[1]}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return reader, writer


def get(port: int) -> bytes:
    return b"GET /a HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % port
