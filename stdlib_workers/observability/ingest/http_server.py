"""A small HTTP server on loopback: Prometheus reads from it, and OTLP is sent to it.

It answers only requests that name this machine as their Host and come from no web page: a page of any site can reach
loopback, and any name can resolve to 127.0.0.1. Sizes and times are bounded. The caller hands in what a path does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import Any, NamedTuple
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError

MAX_BODY = 8 * 1024 * 1024
# For each read from a client.
READ_TIMEOUT = 10.0
MAX_CONNECTIONS = 32
# From the default one on, when it is taken.
PORTS_TRIED = 20


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
    """Serves `routes`, keyed `METHOD PATH`, on threads of its own until it is closed.

    `is_named`: only this port will do. OSError when no port can be had.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Route], *, is_named: bool) -> None:
        ports = [port] if is_named or port == 0 else range(port, port + PORTS_TRIED)
        errors: list[OSError] = []
        for candidate in ports:
            try:
                self._server = _Server(host, candidate, routes)
                break
            except OSError as error:
                errors.append(error)
        else:
            raise errors[0]
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, name="iii-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # The next process of this project may listen on the port at once; two at a time cannot.
    allow_reuse_address = True
    block_on_close = False

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.routes = routes
        self._free_connections = BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)
        own = self.server_address[1]
        self.hosts = {f"{name}:{own}" for name in ("127.0.0.1", "localhost", "[::1]")}

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free_connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free_connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnects in the middle of a request."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "iii"
    sys_version = ""
    timeout = READ_TIMEOUT

    def do_GET(self) -> None:
        try:
            hosts = self.headers.get_all("host") or []
            if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
                raise HttpError(421, "this server does not answer for that Host")
            if self.headers.get("origin") or self.headers.get("sec-fetch-site") not in (None, "none"):
                raise HttpError(403, "web pages may not ask this")
            route = self._route()
            kind = (self.headers.get("content-type") or "").partition(";")[0].strip().lower()
            response = route(Request(kind, self._body() if self.command == "POST" else b""))
        except HttpError as error:
            # The body may be unread: the connection cannot go on.
            self.close_connection = True
            response = Response(error.status, body=f"{error}\n".encode())
        self.send_response(response.status)
        self.send_header("content-type", response.kind)
        self.send_header("content-length", str(len(response.body)))
        self.send_header("x-content-type-options", "nosniff")
        self.end_headers()
        self.wfile.write(response.body)

    do_POST = do_GET

    def _route(self) -> Route:
        path = self.path.partition("?")[0]
        route = self.server.routes.get(f"{self.command} {path}")
        if route is not None:
            return route
        if any(key.endswith(f" {path}") for key in self.server.routes):
            raise HttpError(405, "this path takes another method")
        raise HttpError(404, "there is nothing here")

    def _body(self) -> bytes:
        length = self.headers.get("content-length") or ""
        if not length.isdigit() or self.headers.get("transfer-encoding"):
            raise HttpError(411, "say how long the body is")
        if int(length) > MAX_BODY:
            raise HttpError(413, f"a body has at most {MAX_BODY} bytes")
        body = self.rfile.read(int(length))
        coding = (self.headers.get("content-encoding") or "identity").lower()
        if coding == "identity":
            return body
        if coding != "gzip":
            raise HttpError(415, f"content-encoding must be gzip or none, got {coding[:20]!r}")
        try:
            # 16: gzip alone, not zlib's own form.
            content = decompressobj(16 + MAX_WBITS).decompress(body, MAX_BODY + 1)
        except ZlibError:
            raise HttpError(400, "the body is not gzip") from None
        if len(content) > MAX_BODY:
            raise HttpError(413, f"a body has at most {MAX_BODY} bytes when unpacked")
        return content

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: each line would be another record of this worker's own."""
