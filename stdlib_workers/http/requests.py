"""One HTTP request: its head as values, its body within limits of size and time, and the payload of its function."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from stdlib_workers.http.replies import Headers, Refusal
from stdlib_workers.http.routes import Match

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# A body that is gathered comes within this; of one that is passed on, the next part does.
BODY_SECONDS = 30.0
# How long what a refused client still sends is thrown away: closing at once would reset its connection, and the
# answer with it.
LINGER_SECONDS = 2.0
MAX_QUERY_FIELDS = 1000
# An id of zeros is none.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
# Ids name lines of a log, and traces; they are no secrets.
_mint = random.Random().getrandbits


class Disconnected(Exception):
    """The client has left before it had its answer."""


class Request:
    """One request. `path` is the URL's path as it was sent; `headers` have lower-case names, of repeated ones the last.

    `id` is the one it came with, if that is harmless in a log.
    """

    def __init__(self, scope: Message, receive: Receive, max_body: int, body_seconds: float = BODY_SECONDS) -> None:
        self.scope = scope
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["raw_path"].decode("latin-1")
        # The server's side of the connection, None in a test without one.
        self.connection = scope.get("state", {}).get("connection")
        self.raw_headers: Headers = scope["headers"]
        if self.connection is not None:
            self.raw_headers = self.raw_headers[: self.connection.header_count]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}
        given = self.headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.match(given) else f"{_mint(128):032x}"
        self.is_whole = "content-length" not in self.headers and "transfer-encoding" not in self.headers
        self.receive = receive
        self._max_body = max_body
        self._body_seconds = body_seconds

    async def body(self) -> bytes:
        """Return the whole body. Refusal 413 over the limit, 408 when it is late; Disconnected."""
        if self.is_whole:
            return b""
        self._check_head()
        if self.connection is not None and self.connection.has_whole_body:
            return self._checked(await self._next())
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._body_seconds):
                while not self.is_whole:
                    parts.append(await self._next())
                    size += len(self._checked(parts[-1], size))
        except TimeoutError:
            raise self._late() from None
        return b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; errors as in `body`. Only silence is late."""
        if not self.is_whole:
            self._check_head()
        size = 0
        while not self.is_whole:
            try:
                async with asyncio.timeout(self._body_seconds):
                    chunk = self._checked(await self._next(), size)
            except TimeoutError:
                raise self._late() from None
            size += len(chunk)
            yield chunk

    def _check_head(self) -> None:
        length, coding = self.headers.get("content-length", "0"), self.headers.get("content-encoding", "identity")
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large()
        if coding.lower() != "identity":
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"a body with content-encoding {coding} is not unpacked")

    def _checked(self, chunk: bytes, size: int = 0) -> bytes:
        if size + len(chunk) > self._max_body:
            raise self._too_large()
        return chunk

    async def _next(self) -> bytes:
        message = await self.receive()
        if message["type"] != "http.request":
            raise Disconnected
        self.is_whole = not message.get("more_body", False)
        if self.connection is not None:
            self.connection.on_body_read(is_whole=self.is_whole)
        body: bytes = message.get("body", b"")
        return body

    async def discard(self) -> None:
        """Throw away what still comes of the body, for a moment."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.is_whole:
                    await self._next()
        except (TimeoutError, Disconnected):
            pass

    async def wait_until_gone(self) -> None:
        """Wait until the client has left, or has its answer. After the whole body has been read."""
        while (await self.receive())["type"] == "http.request":
            pass

    def _too_large(self) -> Refusal:
        return Refusal(413, "PAYLOAD_TOO_LARGE", f"the body is over the limit of {self._max_body} bytes")

    def _late(self) -> Refusal:
        return Refusal(408, "REQUEST_TIMEOUT", f"the body took more than {self._body_seconds:g} s")


def trace_from(headers: dict[str, str]) -> tuple[dict[str, str], str | None]:
    """Return the trace context of the request's own span, and that span's parent in the client (W3C), if it has one.

    A new trace has the flags 02: its id is random, and whether it is recorded nobody has decided yet.
    """
    given = headers.get("traceparent", "")
    if not _TRACEPARENT.match(given):
        ids = f"{_mint(192):048x}"
        return {"traceparent": f"00-{ids[:32]}-{ids[32:]}-02"}, None
    flags = "01" if int(given[-2:], 16) & 1 else "00"
    trace = {"traceparent": f"{given[:36]}{_mint(64):016x}-{flags}"}
    if headers.get("baggage"):
        trace["baggage"] = headers["baggage"]
    return trace, given[36:52]


def payload_from(request: Request, match: Match, kind: str = "http") -> dict[str, Any]:
    """Return the request as the route's function gets it, with `body` still null."""
    params, everything = parse_query(request.scope["query_string"])
    pattern = match.route.pattern
    return {
        "method": request.method,
        "path": pattern,
        "path_params": match.params,
        "query_params": params,
        "query_params_all": everything,
        "headers": request.headers,
        "body": None,
        "trigger": {"type": kind, "path": pattern, "method": request.method},
    }


def parse_query(query: bytes) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return each parameter's last value, and all of them. Refusal 400 for what is not UTF-8."""
    if not query:
        return {}, {}
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS, errors="strict")
    except ValueError as error:
        raise Refusal(400, "invalid_query", f"the query cannot be read: {error}") from None
    everything: dict[str, list[str]] = {}
    for name, value in pairs:
        everything.setdefault(name, []).append(value)
    return {name: values[-1] for name, values in everything.items()}, everything
