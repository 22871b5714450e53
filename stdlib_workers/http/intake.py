"""Reads a request from the server: its head as a value, its body within limits of size and time."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, MutableMapping
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
        self._check_head(request)
        if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
            return b""
        return await self._read_all()

    def _check_head(self, request: Request) -> None:
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._limit:
            raise self._too_large()
        coding = request.headers.get("content-encoding", "identity")
        if coding != "identity":
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"a body with content-encoding {coding} is not unpacked")

    async def _read_all(self) -> bytes:
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise Disconnected
            body += message["body"]
            if len(body) > self._limit:
                raise self._too_large()
            if not message["more_body"]:
                return bytes(body)

    def _too_large(self) -> Refusal:
        return Refusal(413, "PAYLOAD_TOO_LARGE", f"the body is over the limit of {self._limit} bytes")
