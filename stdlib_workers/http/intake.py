"""Reads a request from the server: its head as a value, its body within limits of size and time."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from stdlib_workers.http.failures import Refusal
from stdlib_workers.http.requests import Request

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# An id names lines of a log and is no secret.
_mint = random.Random().getrandbits
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")


class Disconnected(Exception):
    """The client has left before its request was complete."""


def request_from(scope: Message) -> Request:
    """Return the head of a request. It keeps the request id it came with, if that is harmless in a log."""
    headers = scope["headers"]
    request = Request(scope["method"], scope["raw_path"].decode("latin-1"), scope["query_string"], headers, "")
    given = request.headers.get("x-request-id", "")
    request.request_id = given if _REQUEST_ID.match(given) else f"{_mint(128):032x}"
    return request


class Body:
    """A request's body, read once."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit

    async def read(self, request: Request) -> bytes:
        """Return the whole body. Refusal 413 over the limit; Disconnected, also when the connection has given up."""
        return b"".join([chunk async for chunk in self.chunks(request)])

    async def chunks(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body as it comes; errors as in `read`."""
        self._check_head(request)
        size, is_last = 0, "content-length" not in request.headers and "transfer-encoding" not in request.headers
        while not is_last:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Disconnected
            size += len(message["body"])
            if size > self._limit:
                raise self._too_large()
            yield message["body"]
            is_last = not message["more_body"]

    async def wait_until_gone(self) -> None:
        """Wait until the client has left, or has its answer. After the whole body has been read."""
        while (await self._receive())["type"] == "http.request":
            pass

    def _check_head(self, request: Request) -> None:
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limit:
            raise self._too_large()
        coding = request.headers.get("content-encoding", "identity")
        if coding != "identity":
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"a body with content-encoding {coding} is not unpacked")

    def _too_large(self) -> Refusal:
        return Refusal(413, "PAYLOAD_TOO_LARGE", f"the body is over the limit of {self._limit} bytes")
