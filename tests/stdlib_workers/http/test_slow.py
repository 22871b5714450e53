"""Clients that are slow on purpose: they are told so and cut off, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stdlib_workers.http.access import AccessLog
from stdlib_workers.http.application import Application
from stdlib_workers.http.listening import HEAD_SECONDS, Listening
from stdlib_workers.http.options import Options
from stdlib_workers.http.requests import BODY_SECONDS
from stdlib_workers.http.routes import Route, Routes
from tests.support.live_project import BOUND

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def serve(
    test: Callable[[Listening, Callable[[], Coroutine[Any, Any, Client]]], Coroutine[Any, Any, None]],
    body_seconds: float = BODY_SECONDS,
) -> None:
    """Run `test(listening, connect)` against an application with one route, `POST /a`."""

    async def run() -> None:
        async def trigger(_: Any) -> Any:
            return {"body": "served"}

        routes = Routes()
        routes.add(Route("t", "f::f", "POST", "/a"))
        application = Application(trigger, routes, Options(), AccessLog(is_on=False))
        application.body_seconds = body_seconds
        listening = Listening(socket.create_server(("127.0.0.1", 0)), application)
        await listening.accept()
        clients: list[Client] = []

        async def connect() -> Client:
            clients.append(await asyncio.open_connection("127.0.0.1", listening.address[1]))
            return clients[-1]

        await asyncio.wait_for(test(listening, connect), BOUND)
        for _, writer in clients:
            writer.close()
            await writer.wait_closed()
        await listening.close(1.0)

    asyncio.run(run())


HEAD = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    ("sent", "limit"),
    [
        (b"", HEAD_SECONDS),
        (b"POST", HEAD_SECONDS),
        (HEAD, HEAD_SECONDS),
    ],
)
def test_h01_who_is_too_slow_gets_a_408_and_the_end(sent: bytes, limit: float) -> None:
    async def test(listening: Listening, connect: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        began = asyncio.get_running_loop().time()
        clients = [await connect() for _ in range(200)]
        for _, writer in clients:
            writer.write(sent)
            await writer.drain()
        fast, answered = await connect(), b""
        fast[1].write(HEAD + b"Content-Length: 0\r\n\r\n")
        while not answered.endswith(b'"served"'):
            answered += await fast[0].read(1000)
        arrived = asyncio.get_running_loop().time()
        listening.expire(began + limit - 0.001)
        fast[1].write(HEAD + b"Content-Length: 0\r\n\r\n")
        assert (await fast[0].readline()).startswith(b"HTTP/1.1 200")
        listening.expire(arrived + limit + 1)
        for reader, _ in clients:
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")

    serve(test)


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 3\r\n\r\n",
        b"Content-Length: 3\r\n\r\nab",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ],
)
def test_h01_a_body_that_does_not_come_in_time_is_a_408_and_the_end(sent: bytes) -> None:
    async def test(_: Listening, connect: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        reader, writer = await connect()
        writer.write(HEAD + sent)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head

    serve(test, body_seconds=0.1)


def test_an_idle_connection_is_not_slow() -> None:
    async def test(listening: Listening, connect: Callable[[], Coroutine[Any, Any, Client]]) -> None:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
            answer = b""
            while not answer.endswith(b'"served"'):
                answer += await reader.read(1000)
            assert answer.startswith(b"HTTP/1.1 200")
            listening.expire(asyncio.get_running_loop().time() + BODY_SECONDS + HEAD_SECONDS)

    serve(test)
