"""One guarded HTTP request: resolve, judge every address, connect to a judged one, follow no redirect.

The host is resolved once, and the connection is made to the addresses of that answer: a resolver that would return
other addresses a moment later is not asked again. One deadline covers request and response, so that a server cannot
keep the connection open by sending byte after byte; the response's size is bounded. Blocking; runs on the caller's
thread.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from stdlib_workers.egress.rules import EgressDenied, Rules, Target

MAX_BODY = 10 * 1024 * 1024
_CHUNK = 64 * 1024

# Host and port to numeric addresses; OSError when the host does not resolve.
Resolve = Callable[[str, int], list[str]]
# Address, port and timeout in seconds to a connected socket.
Connect = Callable[[str, int, float], socket.socket]


class RequestFailed(Exception):
    """There was no response: no connection, no TLS, no answer in time."""


class ResponseFailed(Exception):
    """The response began and could not be read to its end."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `timeout` in seconds, from the first connection attempt to the end of the response."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    timeout: float


@dataclass(frozen=True, slots=True)
class Response:
    """Status and body of the response."""

    status: int
    body: bytes


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses that the system's resolver has for a host, each once."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


def connect(address: str, port: int, timeout: float) -> socket.socket:
    """Connect to a numeric address."""
    return socket.create_connection((address, port), timeout)


def send(request: Request, rules: Rules, *, ask: Resolve = resolve, dial: Connect = connect) -> Response:
    """Send the request where the rules allow it. Raises EgressDenied, RequestFailed or ResponseFailed."""
    target = rules.target_of(request.url)
    addresses = _addresses(target, rules, ask)
    deadline = monotonic() + request.timeout
    with _TimedSocket(_connected(addresses, target, deadline, dial), deadline) as timed:
        return _send_on(timed, target, request)


def check(url: str, rules: Rules, *, ask: Resolve = resolve) -> None:
    """Raise `EgressDenied` if `send` would raise it now."""
    _addresses(rules.target_of(url), rules, ask)


def _addresses(target: Target, rules: Rules, ask: Resolve) -> list[str]:
    try:
        addresses = ask(target.host, target.port)
    except OSError as error:
        raise EgressDenied("dns", f"{target.host} cannot be resolved: {error.strerror or error}") from None
    rules.check_addresses(target.host, addresses)
    return addresses


def _connected(addresses: list[str], target: Target, deadline: float, dial: Connect) -> socket.socket:
    failures = []
    for address in addresses:
        try:
            connected = dial(address, target.port, _remaining(deadline))
            if target.scheme != "https":
                return connected
            try:
                return ssl.create_default_context().wrap_socket(connected, server_hostname=target.host)
            except OSError:
                connected.close()
                raise
        except OSError as error:
            failures.append(f"{address}: {error}")
    raise RequestFailed(f"{target.authority} cannot be reached: {'; '.join(failures)}")


def _remaining(deadline: float) -> float:
    remaining = deadline - monotonic()
    if remaining <= 0:
        raise TimeoutError("timed out")
    return remaining


class _TimedSocket(io.RawIOBase):
    """A connected socket for `http.client`, and the stream it reads. All operations end at one deadline."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_remaining(self._deadline))
        self._socket.sendall(data)

    def readinto(self, buffer: Any) -> int:
        self._socket.settimeout(_remaining(self._deadline))
        return self._socket.recv_into(buffer)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: `http.client` closes its socket while the body is still to be read."""

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _send_on(timed: _TimedSocket, target: Target, request: Request) -> Response:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = timed  # all it needs: sendall, makefile, close
    try:
        connection.putrequest(request.method, target.path, skip_host=True, skip_accept_encoding=True)
        own = [("Host", target.authority), ("Content-Length", str(len(request.body))), ("Connection", "close")]
        for name, value in (*own, *request.headers):
            connection.putheader(name, value)
        connection.endheaders(request.body)
        response = connection.getresponse()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise RequestFailed(f"{target.authority}: {error or type(error).__name__}") from None
    with response:
        return Response(response.status, _body_of(response, target))


def _body_of(response: http.client.HTTPResponse, target: Target) -> bytes:
    parts, size = [], 0
    try:
        while part := response.read1(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > MAX_BODY:
                raise ResponseFailed(f"{target.authority}: the answer is larger than {MAX_BODY} bytes")
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ResponseFailed(f"{target.authority}: the answer broke off: {error or type(error).__name__}") from None
    return b"".join(parts)
