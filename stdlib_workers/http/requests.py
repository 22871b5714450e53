"""One HTTP request: its head as values, its body within limits of size and time, the calls made for it, its outcome."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from time import perf_counter, time_ns
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from iii import InvocationError, TriggerRequestInput
from stdlib_workers.http.replies import Explain, Refusal, refusal_from
from stdlib_workers.http.routes import Route

Trigger = Callable[[TriggerRequestInput], Awaitable[Any]]

# A body that is gathered comes within this; of one that is passed on, the next part does.
BODY_SECONDS = 30.0
# How long what a refused client still sends is thrown away: closing at once would reset its connection, and the
# answer with it.
LINGER_SECONDS = 2.0
MAX_QUERY_FIELDS = 1000
# Longer than any stream: the engine's deadline of a call counts its length, ours the silence in it.
ENDLESS_MS = 30 * 24 * 3600 * 1000
# An id of zeros is none.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
# Ids name lines of a log, and traces; they are no secrets.
_mint = random.Random().getrandbits


class Disconnected(Exception):
    """The client has left before it had its answer."""


class Request:
    """One request. `path` is the URL's path as it was sent; `headers` have lower-case names, of repeated ones the last.

    `id` is the one it came with, if that is harmless in a log. All its calls together may take `seconds`. `route`,
    `status` and `error`, a failure's code, say what has become of it.
    """

    def __init__(
        self, scope: Scope, receive: Receive, max_body: int, seconds: float, body_seconds: float = BODY_SECONDS
    ) -> None:
        self.began_at, self.began = time_ns(), perf_counter()
        self.scope = scope
        self.receive = receive
        self.method: str = scope.get("method", "GET")
        self.path: str = scope["raw_path"].decode("latin-1")
        # The server's side of the connection, None in a test without one.
        self.connection: Any = scope.get("state", {}).get("connection")
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        if self.connection is not None:
            self.raw_headers = self.raw_headers[: self.connection.header_count]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}
        given = self.headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.match(given) else f"{_mint(128):032x}"
        self.trace, self.parent = trace_from(self.headers)
        self.segments: list[str] = []  # of the path, decoded
        self.route: Route | None = None
        self.stream: Any = None  # the `Items`, `Stream` or `Socket` that it holds to its end
        self.status = 0
        self.error = ""
        self.is_whole = "content-length" not in self.headers and "transfer-encoding" not in self.headers
        self._max_body = max_body
        self._body_seconds = body_seconds
        self._loop = asyncio.get_running_loop()
        self.deadline = self._loop.time() + seconds  # on the loop's clock, for all its calls

    @property
    def function_id(self) -> str:
        """The function that answers, "-" as long as none is known."""
        return "-" if self.route is None else self.route.function_id

    async def call(
        self,
        trigger: Trigger,
        function_id: str,
        payload: Any,
        *,
        is_endless: bool = False,
        is_middleware: bool = False,
        explain: Explain | None = None,
    ) -> Any:
        """Call a function in the route's namespace, with the route's metadata. Refusal for every failure.

        `is_endless`: the caller itself sees to it that the call does not stand still. `is_middleware` and
        `explain` as in `refusal_from`.
        """
        try:
            return await trigger(self.call_of(function_id, payload, is_endless=is_endless))
        except InvocationError as error:
            raise refusal_from(error, is_middleware=is_middleware, explain=explain) from None

    def call_of(self, function_id: str, payload: Any, *, is_endless: bool) -> TriggerRequestInput:
        """Return the call of a function on behalf of this request."""
        assert self.route is not None
        left_ms = int((self.deadline - self._loop.time()) * 1000)
        return {
            "function_id": function_id,
            "payload": payload,
            "timeout_ms": ENDLESS_MS if is_endless else max(1, left_ms),
            "metadata": self.route.metadata,
            "namespace": self.route.namespace,
            "trace": self.trace,
        }

    async def body(self) -> bytes:
        """Return the whole body; errors as in `chunks`."""
        if self.is_whole or self.connection is None or self.connection.body_left:
            return b"".join([chunk async for chunk in self.chunks(in_all=True)])
        self._check_head()  # nothing has to be waited for
        body = await self._next()
        self._check_size(len(body))
        return body

    async def chunks(self, *, in_all: bool = False) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Refusal 413 over the limit, 408 when it is late; Disconnected.

        Late is only silence, `in_all`: what has not come whole in time.
        """
        size, end = 0, self._loop.time() + self._body_seconds
        if not self.is_whole:
            self._check_head()
        while not self.is_whole:
            try:
                async with asyncio.timeout_at(end):
                    chunk = await self._next()
            except TimeoutError:
                text = f"the body took more than {self._body_seconds:g} s"
                raise Refusal(408, "REQUEST_TIMEOUT", text) from None
            size += len(chunk)
            self._check_size(size)
            yield chunk
            end = end if in_all else self._loop.time() + self._body_seconds

    def _check_head(self) -> None:
        length, coding = self.headers.get("content-length", "0"), self.headers.get("content-encoding", "identity")
        self._check_size(int(length) if length.isdigit() else 0)
        if coding.lower() != "identity":
            raise Refusal(415, "UNSUPPORTED_MEDIA_TYPE", f"a body with content-encoding {coding} is not unpacked")

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            raise Refusal(413, "PAYLOAD_TOO_LARGE", f"the body is over the limit of {self._max_body} bytes")

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


def payload_from(request: Request, route: Route) -> dict[str, Any]:
    """Return the request as the route's function gets it, with `body` still null. Refusal 400 for a broken query."""
    everything: dict[str, list[str]] = {}
    if query := request.scope["query_string"]:
        try:
            pairs = parse_qsl(query.decode(), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS, errors="strict")
        except ValueError as error:
            raise Refusal(400, "invalid_query", f"the query cannot be read: {error}") from None
        for name, value in pairs:
            everything.setdefault(name, []).append(value)
    return {
        "method": request.method,
        "path": route.pattern,
        "path_params": route.params_in(request.segments),
        "query_params": {name: values[-1] for name, values in everything.items()},
        "query_params_all": everything,
        "headers": request.headers,
        "body": None,
        "trigger": {"type": request.scope["type"], "path": route.pattern, "method": request.method},
    }
