"""An httpx transport that goes only where the rules allow.

Each request's URL is judged, its host resolved once, and every address of that answer judged: the connection is made to
one of these, and a resolver that would return others a moment later is not asked again. TLS and the Host header name
the host all the same. The environment's proxies are no business of this transport.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpcore
import httpx

from stdlib_workers.egress.rules import EgressDenied, Rules

# Host and port to numeric addresses; OSError when the host does not resolve.
Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses that the system's resolver has for a host, each once."""
    entries = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


async def judged_addresses(host: str, port: int, rules: Rules, ask: Resolve = resolve) -> list[str]:
    """Return the addresses of a host. Raises `EgressDenied` unless there are some and all may be connected to."""
    try:
        addresses = await ask(host, port)
    except OSError as error:
        raise EgressDenied("dns", f"{host} cannot be resolved: {error.strerror or error}") from None
    except UnicodeError:  # a label is too long for the resolver
        raise EgressDenied("url", f"{host[:80]} is no name of a host") from None
    rules.check_addresses(host, addresses)
    return addresses


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends each request on a connection of its own. Raises EgressDenied, and httpcore's errors.

    `dial` connects to numeric addresses.
    """

    def __init__(self, rules: Rules, *, ask: Resolve = resolve, dial: httpcore.AsyncNetworkBackend | None = None):
        self._rules = rules
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=None,
            # A connection that its server closes just now would lose the next request.
            max_keepalive_connections=0,
            network_backend=_GuardedBackend(rules, ask, dial or httpcore.AnyIOBackend()),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = self._rules.target_of(str(request.url))
        assert isinstance(request.stream, httpx.AsyncByteStream)
        response = await self._pool.handle_async_request(
            httpcore.Request(
                request.method,
                httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=request.url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_ResponseStream(response))

    async def aclose(self) -> None:
        await self._pool.aclose()


class _ResponseStream(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_stream()

    async def aclose(self) -> None:
        await self._response.aclose()


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, rules: Rules, ask: Resolve, dial: httpcore.AsyncNetworkBackend) -> None:
        self._rules = rules
        self._ask = ask
        self._dial = dial

    async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        failures = []
        for address in await judged_addresses(host, port, self._rules, self._ask):
            try:
                return _OneWriteStream(await self._dial.connect_tcp(address, port, *args, **options))
            except httpcore.NetworkError as error:
                failures.append(f"{address}: {error or 'no connection'}")
        raise httpcore.ConnectError(f"cannot be reached: {'; '.join(failures)}")


class _OneWriteStream(httpcore.AsyncNetworkStream):
    """Keeps what is written until something is read: head and body of a request leave in one write.

    In two, the second would wait for the answer to the first where Nagle's algorithm meets delayed acknowledgments, and
    simple servers that read once would see no body.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._unsent = b""
        self._write_timeout: float | None = None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._unsent += buffer
        self._write_timeout = timeout

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unsent:
            request, self._unsent = self._unsent, b""
            # A server may answer and close before it has read all: its answer is what counts.
            with suppress(httpcore.WriteError):
                await self._stream.write(request, self._write_timeout)
        return await self._stream.read(max_bytes, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _OneWriteStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
