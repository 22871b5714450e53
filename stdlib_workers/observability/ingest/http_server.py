"""A small HTTP server on loopback: for Prometheus to read from, for OTLP to be sent to.

It answers only requests that name this machine as their Host and come from no web page: a page of any site can reach
loopback, and a name can be bound to 127.0.0.1. Bodies, headers and waiting are bounded. What a path does is handed in.
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
# Seconds a peer may take to say its next word.
TIMEOUT = 10.0
MAX_CONNECTIONS = 32
# Ports after the default one that are tried when it is taken.
MORE_PORTS = 20
_GZIP = 16 + MAX_WBITS


class Request(NamedTuple):
    """One request that may be answered; `kind`: its content type without parameters, `body` unpacked."""

    kind: str
    body: bytes


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    kind: str = "text/plain; charset=utf-8"
    body: bytes = b""


class Refused(Exception):
    """A request that is answered with a status and a line of text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


Route = Callable[[Request], Answer]


class Listener:
    """Serves `routes`, keyed `METHOD PATH`, on threads of its own until it is closed."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route], *, is_named: bool) -> None:
        self._server = _bind(host, port, routes, is_named=is_named)
        self._thread = Thread(target=self._server.serve_forever, name="iii-listener", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        port: int = self._server.server_address[1]
        return port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _bind(host: str, port: int, routes: Mapping[str, Route], *, is_named: bool) -> _Server:
    ports = [port] if is_named or port == 0 else range(port, port + MORE_PORTS)
    error: OSError | None = None
    for one in ports:
        try:
            return _Server(host, one, routes)
        except OSError as found:
            error = error or found
    raise error or OSError("no port")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Two engines of one machine must not share a port, and the next one of this project may take it at once.
    allow_reuse_address = True
    block_on_close = False

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.routes = routes
        self._places = BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)
        own = self.server_address[1]
        self.hosts = {f"{name}:{own}" for name in ("127.0.0.1", "localhost", "[::1]")}

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that is gone in the middle of a request is nobody's error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "iii"
    sys_version = ""
    timeout = TIMEOUT

    def do_GET(self) -> None:
        self._respond("GET")

    def do_POST(self) -> None:
        self._respond("POST")

    def _respond(self, method: str) -> None:
        try:
            answer = self._answer(method)
        except Refused as refused:
            # The body may be unread: the connection cannot go on.
            self.close_connection = True
            answer = Answer(refused.status, body=f"{refused}\n".encode())
        self.send_response(answer.status)
        self.send_header("content-type", answer.kind)
        self.send_header("content-length", str(len(answer.body)))
        self.send_header("x-content-type-options", "nosniff")
        self.end_headers()
        self.wfile.write(answer.body)

    def _answer(self, method: str) -> Answer:
        self._check_origin()
        path = self.path.partition("?")[0]
        route = self.server.routes.get(f"{method} {path}")
        if route is None:
            is_known = any(key.endswith(f" {path}") for key in self.server.routes)
            raise Refused(405, "this path takes another method") if is_known else Refused(404, "there is nothing here")
        kind = (self.headers.get("content-type") or "").partition(";")[0].strip().lower()
        return route(Request(kind, self._body() if method == "POST" else b""))

    def _check_origin(self) -> None:
        hosts = self.headers.get_all("host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise Refused(421, "this server does not answer for that Host")
        if self.headers.get("origin") or self.headers.get("sec-fetch-site") not in (None, "none"):
            raise Refused(403, "web pages may not ask this")

    def _body(self) -> bytes:
        length = self.headers.get("content-length") or ""
        if not length.isdigit() or self.headers.get("transfer-encoding"):
            raise Refused(411, "say how long the body is")
        if int(length) > MAX_BODY:
            raise Refused(413, f"a body has at most {MAX_BODY} bytes")
        body = self.rfile.read(int(length))
        coding = (self.headers.get("content-encoding") or "identity").lower()
        if coding == "identity":
            return body
        if coding != "gzip":
            raise Refused(415, f"content-encoding must be gzip or none, got {coding[:20]!r}")
        return unpacked(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: each log would be another thing observed."""


def unpacked(body: bytes) -> bytes:
    """Return the content of a gzip body. Refused for one that is none or would be too large."""
    unpacker = decompressobj(_GZIP)
    try:
        found = unpacker.decompress(body, MAX_BODY + 1)
    except ZlibError:
        raise Refused(400, "the body is not gzip") from None
    if len(found) > MAX_BODY:
        raise Refused(413, f"a body has at most {MAX_BODY} bytes when unpacked")
    return found
