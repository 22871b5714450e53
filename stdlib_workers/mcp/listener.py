"""Streamable HTTP on loopback, at `/mcp`: the key, Host and Origin are checked before anything of a request is read.

Requests are independent of each other: no session is kept, so that a client goes on with the next generation of this
worker, and no number of clients fills memory.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from hmac import compare_digest
from threading import Thread
from typing import Any

import uvicorn
from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from stdlib_workers.mcp.sockets import PATH
from stdlib_workers.values.serving import LOOPBACK, uvicorn_config

# Bytes of a request's body.
MAX_BODY = 1024 * 1024
# Requests at a time; further ones are answered 503.
MAX_REQUESTS = 64
# Seconds for a body, that a connection may stay without another request, and that answers have when the server closes.
BODY_TIMEOUT, KEEP_ALIVE, GRACE = 30.0, 30, 5

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def refusal(headers: Iterable[tuple[bytes, bytes]], hosts: frozenset[str], key: str) -> tuple[int, str] | None:
    """Return status and text for a request that may not go on, None for one that may. Pure.

    A page can reach loopback, and any name can be bound to it: so the Host must be ours, and no Origin but ours asks.
    """
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    host = fields.get("host", [])
    if len(host) != 1 or host[0].lower() not in hosts:
        return 421, "this server does not answer for that Host"
    if any(origin.lower() not in {f"http://{name}" for name in hosts} for origin in fields.get("origin", [])):
        return 403, "pages of this origin may not ask this"
    shown = fields.get("authorization", [])
    scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
    # Both are compared as bytes: a comparison of texts refuses what is not ASCII with an error.
    if not (scheme.lower() == "bearer" and compare_digest(token.strip().encode(), key.encode())):
        return 401, "show the key of this project as `Authorization: Bearer KEY`; it is in .iii/mcp.key or in iii.toml"
    return None


class Guard:
    """The ASGI application around the protocol's: refuses, or lets a request through."""

    def __init__(self, application: Any, port: int, key: str) -> None:
        self._application = application
        self._key = key
        self._hosts = frozenset(f"{name}:{port}" for name in LOOPBACK)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = refusal(scope["headers"], self._hosts, self._key)
        if answer is None and scope["path"] != PATH:
            answer = 404, f"MCP is at {PATH}"
        if answer is None and scope["method"] != "POST":
            answer = 405, "there are no sessions, and so no stream beside the answers: only POST is served"
        if answer is not None:
            await _refuse(send, *answer)
            return
        await self._application(scope, _bounded(receive), send)


def _bounded(receive: Receive) -> Receive:
    """Return the same, with a bound on the time for the body: what comes after it may take as long as it likes."""
    loop = asyncio.get_running_loop()
    deadline, is_complete = loop.time() + BODY_TIMEOUT, False

    async def bounded() -> Any:
        nonlocal is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message: Mapping[str, Any] = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        is_complete = not message.get("more_body", False)
        return message

    return bounded


async def _refuse(send: Send, status: int, text: str) -> None:
    body = f"{text}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        # The body may be unread: the connection cannot go on.
        (b"connection", b"close"),
    ]
    if status == 405:
        headers.append((b"allow", b"POST"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Listener:
    """Serves on `sock`, from a thread of its own, until it is closed."""

    def __init__(self, server: Server[Any], sock: socket.socket, key: str) -> None:
        self._sock = sock
        # Host and Origin are checked by the guard, which comes before.
        self._manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=MAX_BODY)
        # Requests that are refused are their clients' affair; what breaks in here is logged.
        logging.basicConfig(level=logging.ERROR)
        config = uvicorn_config(
            Guard(self._manager.handle_request, sock.getsockname()[1], key),
            loop="uvloop",
            ws="none",
            limit_concurrency=MAX_REQUESTS,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._run, name="mcp-http", daemon=True)

    def start(self) -> None:
        """Serve from now on: the socket listens already, so that no client comes too early."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and wait for the answers under way."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        async with self._manager.run():
            await self._server.serve(sockets=[self._sock])
