"""Streamable HTTP on loopback, at `/mcp`: the key, Host and Origin are checked before anything of a request is read.

Requests are independent of each other: no session is kept, so that a client goes on with the next generation of this
worker, and no number of clients fills memory. Clients of older versions of the protocol get an id of a session all the
same, without which some open no stream.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable
from hmac import compare_digest
from typing import Any

from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from stdlib_workers.loopback.requests import fields_of, hosts_of
from stdlib_workers.loopback.requests import refusal as refusal_of_page
from stdlib_workers.loopback.server import ServerThread, bounded
from stdlib_workers.mcp.options import PATH
from stdlib_workers.mcp.streams import SESSION_ID, ChangeStreams

# The header of every request but a client's first.
VERSION = "mcp-protocol-version"
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

    def __init__(self, application: Any, streams: ChangeStreams, port: int, key: str) -> None:
        self._application = application
        self._streams = streams
        self._key = key
        self._hosts = hosts_of(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = refusal(scope["headers"], self._hosts, self._key)
        if answer is None and scope["path"] != PATH:
            answer = 404, f"MCP is at {PATH}"
        fields = fields_of(scope["headers"])
        is_stream = scope["method"] == "GET"
        if answer is None:
            answer = self._refusal_of_stream(fields) if is_stream else _refusal_of_method(scope["method"])
        if answer is not None:
            await _refuse(send, *answer)
        elif is_stream:
            await self._streams.serve(bounded(receive), send, has_missed=self._streams.may_have_missed(fields))
        else:
            is_new = not fields.keys() & {SESSION_ID, VERSION}
            await self._application(scope, bounded(receive), self._with_session_id(send) if is_new else send)

    def _refusal_of_stream(self, fields: dict[str, list[str]]) -> tuple[int, str] | None:
        if any(version not in HANDSHAKE_PROTOCOL_VERSIONS for version in fields.get(VERSION, [])):
            return 405, "this version of the protocol has no streams: listen with subscriptions/listen"
        if not any("text/event-stream" in accepted for accepted in fields.get("accept", [])):
            return 406, "what comes on GET is text/event-stream, which the request does not accept"
        return (503, "as many streams are open as there can be") if self._streams.is_full else None

    def _with_session_id(self, send: Send) -> Send:
        """Return a `send` for the first request of a client, which has neither an id nor agreed on a version."""

        async def send_with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                header = (SESSION_ID.encode(), self._streams.new_session_id().encode())
                message = {**message, "headers": [*message["headers"], header]}
            await send(message)

        return send_with_id


def _refusal_of_method(method: str) -> tuple[int, str] | None:
    if method == "POST":
        return None
    return 405, "POST and GET are served; no session is kept that DELETE could end"


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
        headers.append((b"allow", b"GET, POST"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def listener(server: Server[Any], streams: ChangeStreams, sock: socket.socket, key: str) -> ServerThread:
    """Return what serves on `sock`, from a thread of its own."""
    # Host and Origin are checked by the guard, which comes before.
    manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=MAX_BODY)
    guard = Guard(manager.handle_request, streams, sock.getsockname()[1], key)
    return ServerThread("mcp-http", guard, sock, limit=MAX_REQUESTS, grace=GRACE, around=manager.run)
