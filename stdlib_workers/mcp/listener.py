"""Streamable HTTP on loopback, at `/mcp`: the key, Host and Origin are checked before anything of a request is read.

Requests are independent of each other: no session is kept, so that a client goes on with the next generation of this
worker, and no number of clients fills memory.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from hmac import compare_digest
from typing import Any

from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from stdlib_workers.loopback.requests import fields_of, hosts_of
from stdlib_workers.loopback.requests import refusal as refusal_of_page
from stdlib_workers.loopback.server import ServerThread, bounded
from stdlib_workers.mcp.options import PATH

# Bytes of a request's body.
MAX_BODY = 1024 * 1024
# Requests at a time.
MAX_REQUESTS = 64
# Seconds that answers have when the server closes.
GRACE = 5

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def refusal(headers: Iterable[tuple[bytes, bytes]], hosts: frozenset[str], key: str) -> tuple[int, str] | None:
    """Return status and text for a request that may not go on, None for one that may. Pure."""
    fields = fields_of(headers)
    if (refused := refusal_of_page(fields, hosts)) is not None:
        return refused
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
        self._hosts = hosts_of(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = refusal(scope["headers"], self._hosts, self._key)
        if answer is None and scope["path"] != PATH:
            answer = 404, f"MCP is at {PATH}"
        if answer is None and scope["method"] != "POST":
            answer = 405, "there are no sessions, and so no stream beside the answers: only POST is served"
        if answer is not None:
            await _refuse(send, *answer)
            return
        await self._application(scope, bounded(receive), send)


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


def listener(server: Server[Any], sock: socket.socket, key: str) -> ServerThread:
    """Return what serves on `sock`, from a thread of its own."""
    # Host and Origin are checked by the guard, which comes before.
    manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=MAX_BODY)
    guard = Guard(manager.handle_request, sock.getsockname()[1], key)
    return ServerThread("mcp-http", guard, sock, limit=MAX_REQUESTS, grace=GRACE, around=manager.run)
