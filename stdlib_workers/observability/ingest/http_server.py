"""A small HTTP server on loopback: Prometheus reads from it, and OTLP is sent to it.

uvicorn serves it, from a thread of its own. It answers only requests that name this machine as their Host and come from
no web page: a page of any site can reach loopback, and any name can resolve to 127.0.0.1. Sizes and times are bounded.
The caller hands in what a path does; that runs on a thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from stdlib_workers.values.gunzip import Gunzip
from stdlib_workers.values.serving import LOOPBACK, uvicorn_config

if TYPE_CHECKING:
    import uvicorn

MAX_BODY = 8 * 1024 * 1024
# For the whole body of a request.
BODY_TIMEOUT = 30.0
# Seconds that a connection may stay without another request, and that answers under way have when the server closes.
KEEP_ALIVE, GRACE = 30, 2
# Requests and idle connections; further ones are answered 503.
MAX_CONNECTIONS = 64
# Seconds that the kernel keeps connections to itself on which nothing was sent: they take no place here.
DEFER_ACCEPT = 10
# From the default one on, when it is taken.
PORTS_TRIED = 20

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Request(NamedTuple):
    """One request that passed the checks; `kind`: its content type without parameters, `body` decompressed."""

    kind: str
    body: bytes


class Response(NamedTuple):
    """The response to a request; `kind`: its content type."""

    status: int
    kind: str = "text/plain; charset=utf-8"
    body: bytes = b""


class HttpError(Exception):
    """Ends a request with a status and a line of text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


Route = Callable[[Request], Response]


class HttpServer:
    """Serves `routes`, keyed `METHOD PATH`, until it is closed.

    `is_named`: only this port will do. OSError when no port can be had.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Route], *, is_named: bool) -> None:
        ports = [port] if is_named or port == 0 else range(port, port + PORTS_TRIED)
        errors: list[OSError] = []
        for candidate in ports:
            try:
                self._socket = _listening(host, candidate)
                break
            except OSError as error:
                errors.append(error)
        else:
            raise errors[0]
        self.port: int = self._socket.getsockname()[1]
        self._app = App(routes, self.port)
        self._server: uvicorn.Server | None = None
        self._is_closed = False
        self._thread = Thread(target=self._serve, name="iii-listener", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        import uvicorn  # on this thread: the worker need not wait for it

        # Nothing is logged: each line would be another record of this worker's own.
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        config = uvicorn_config(
            self._app,
            loop="asyncio",
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
        self._server = uvicorn.Server(config)
        if not self._is_closed:
            self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """Stop listening, and wait for the answers under way."""
        self._is_closed = True
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def _listening(host: str, port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # The next process of this project may listen on the port at once; two at a time cannot.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT)
        opened.bind((host, port))
        opened.listen()
    except OSError:
        opened.close()
        raise
    return opened


class App:
    """The ASGI application: checks a request, reads its body, and lets its route answer it."""

    def __init__(self, routes: Mapping[str, Route], port: int) -> None:
        self._routes = routes
        self._hosts = {f"{name}:{port}" for name in LOOPBACK}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        more = []
        try:
            headers = self._checked_headers(scope)
            route = self._route(scope)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            body = await _body(headers, receive) if scope["method"] == "POST" else b""
            response = await asyncio.to_thread(route, Request(kind, body))
        except HttpError as error:
            # The body may be unread: the connection cannot go on.
            more = [(b"connection", b"close")]
            response = Response(error.status, body=f"{error}\n".encode())
        fields = {
            "content-type": response.kind,
            "content-length": str(len(response.body)),
            "x-content-type-options": "nosniff",
        }
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": encoded + more})
        await send({"type": "http.response.body", "body": response.body})

    def _checked_headers(self, scope: Scope) -> dict[str, str]:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in pairs if name == "host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise HttpError(421, "this server does not answer for that Host")
        headers = dict(pairs)
        if headers.get("origin") or headers.get("sec-fetch-site") not in (None, "none"):
            raise HttpError(403, "web pages may not ask this")
        return headers

    def _route(self, scope: Scope) -> Route:
        method, path = scope["method"], scope["path"]
        route = self._routes.get(f"{method} {path}")
        if route is not None:
            return route
        if any(key.endswith(f" {path}") for key in self._routes):
            raise HttpError(405, "this path takes another method")
        raise HttpError(404, "there is nothing here")


async def _body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """Return the body of a request, decompressed, however it was cut into pieces."""
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip"):
        raise HttpError(415, f"content-encoding must be gzip or none, got {coding[:20]!r}")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise HttpError(413, f"a body has at most {MAX_BODY} bytes")
    gunzip = Gunzip(MAX_BODY) if coding == "gzip" else None
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            parts = [part if gunzip is None else gunzip.feed(part) async for part in _pieces(receive)]
        if gunzip is not None:
            gunzip.close()
    except TimeoutError:
        raise HttpError(408, f"the body has not come within {BODY_TIMEOUT:g} s") from None
    except OverflowError:
        raise HttpError(413, f"a body has at most {MAX_BODY} bytes when decompressed") from None
    except ValueError as error:
        raise HttpError(400, f"the body cannot be decompressed: {error}") from None
    return b"".join(parts)


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    size, has_more = 0, True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "the body broke off")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise HttpError(413, f"a body has at most {MAX_BODY} bytes")
        yield part
        has_more = message.get("more_body", False)
