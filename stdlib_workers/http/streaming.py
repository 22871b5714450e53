"""A request whose function answers through a channel: texts set status and headers, the first bytes commit them.

Until then a result of the function wins, and its failure is the answer. Afterwards the stream counts, and it is whole
only if the function was: an answer that its function fails in, or falls silent in, ends without its end. The files of a
multipart form are channels too. A client that leaves closes the reader, and the function's next write fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from stdlib_workers.http.bodies import is_parsed, parse_body
from stdlib_workers.http.channels import ChannelEnd, Channels, write_all
from stdlib_workers.http.replies import Headers, Refusal, headers_from, response_from
from stdlib_workers.http.requests import Disconnected, Request, Trigger

# What one request may open; a form of a thousand files would take the descriptors of everybody else.
MAX_FILES = 32
# A writer's piece; the engine takes no message of any size.
PIECE = 64 * 1024
# A function that has closed its stream and still runs has written all it wanted, unless it fails in this time. The
# client does not wait for longer: of a later failure only the engine tells.
OUTCOME_SECONDS = 1.0
# Within this a channel hands over what was written before its function failed.
REST_SECONDS = 0.2
EVENTS = b"text/event-stream"


class Streamed(StreamingResponse):
    """An answer as it comes. `Stream` itself sees to a client that leaves: what comes from it is the function's."""

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            self.body_iterator = _pieces(b"")
        await self.stream_response(send)


class Stream:
    """One such request. `open` before the function is called, then `respond`; `close` in any case.

    `silence` is how many seconds the function and the client may both be silent.
    """

    def __init__(self, channels: Channels, request: Request, silence: float) -> None:
        self._channels = channels
        self._request = request
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._files: list[tuple[dict[str, Any], bytes]] = []
        self._status = 200
        self._headers: Headers = []
        self._reader: ChannelEnd | None = None
        self._waiting: asyncio.Timeout | None = None
        self._is_gone = False

    async def open(self, payload: dict[str, Any]) -> None:
        """Give the payload its two references and begin to pass the body on. Refusal without channels."""
        (body_writer, body_reader), (writer, reader) = await asyncio.gather(
            self._channels.make(), self._channels.make()
        )
        payload["request_body"], payload["response"] = body_reader, writer
        content_type = self._request.headers.get("content-type", "")
        chunks = self._request.chunks()
        if is_parsed(content_type):
            whole = await self._request.body()
            payload["body"] = await parse_body(content_type, whole, self._file_value)
            chunks = _pieces(whole)
        for value, content in self._files:
            file_writer, value["content"] = await self._channels.make()
            self._start(write_all(await self._channels.open(file_writer), _pieces(content)))
        self._reader = await self._channels.open(reader)
        self._start(self._pass_on(await self._channels.open(body_writer), chunks, self._reader))

    def _file_value(self, facts: dict[str, Any], content: bytes) -> dict[str, Any]:
        if len(self._files) == MAX_FILES:
            raise Refusal(413, "PAYLOAD_TOO_LARGE", f"the form has more than {MAX_FILES} files")
        self._files.append((facts, content))
        return facts

    async def _pass_on(self, end: ChannelEnd, chunks: AsyncIterator[bytes], reader: ChannelEnd) -> None:
        with suppress(Disconnected, Refusal):
            await write_all(end, self._noted(chunks))
            await self._request.wait_until_gone()
        self._is_gone = True
        await reader.close()

    async def _noted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self._moved_at = self._loop.time()
            yield chunk

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task

    async def respond(self, trigger: Trigger, payload: dict[str, Any]) -> Response:
        """Call the function and return what it answers, by a result or as a stream."""
        request, function_id = self._request, self._request.function_id
        call = self._start(request.call(trigger, function_id, payload, is_endless=True))
        first = self._start(self._first_bytes())
        try:
            async with asyncio.timeout_at(request.deadline):
                await asyncio.wait({call, first}, return_when=asyncio.FIRST_COMPLETED)
                if not first.done() or first.result() is None:
                    result = await call
                    if result is not None:
                        return response_from(result)
                head = await first
        except TimeoutError:
            raise Refusal(504, "TIMEOUT", f"{function_id} neither returned nor wrote in time") from None
        response = Streamed(self._chunks(head, call), self._status)
        response.raw_headers += self._headers
        return response

    async def _first_bytes(self) -> bytes | None:
        assert self._reader is not None
        while (item := await self._reader.receive()) is not None:
            if isinstance(item, bytes):
                return item
            self._control(item)
        return None

    def _control(self, text: str) -> None:
        with suppress(orjson.JSONDecodeError):
            status, headers = status_and_headers_from(orjson.loads(text))
            self._status = status or self._status
            names = {name for name, _ in headers}
            self._headers = [header for header in self._headers if header[0] not in names] + headers

    async def _chunks(self, head: bytes | None, call: asyncio.Task[Any]) -> AsyncIterator[bytes]:
        """Yield the bytes to their end. Refusal when that is not the one the function wanted; Disconnected.

        Server-sent events then end with one that says so.
        """
        call.add_done_callback(self._hurry)
        item: str | bytes | None = head
        try:
            while item is not None:
                if isinstance(item, bytes):
                    yield item
                item = await self._next(call)
            if self._is_gone:
                raise Disconnected
            await asyncio.wait({call}, timeout=OUTCOME_SECONDS)
            if call.done():
                await call
        except Refusal as refusal:
            if any(name == b"content-type" and value.startswith(EVENTS) for name, value in self._headers):
                yield failure_event(refusal, self._request.id)
            raise
        self._tasks.discard(call)  # it may go on

    async def _next(self, call: asyncio.Task[Any]) -> str | bytes | None:
        """Return the next item, None at the end. Refusal once the function has failed, or all is silent."""
        assert self._reader is not None
        self._moved_at = self._loop.time()
        while True:
            has_failed = call.done() and call.exception() is not None
            end = self._loop.time() + REST_SECONDS if has_failed else self._moved_at + self._silence
            try:
                async with asyncio.timeout_at(end) as self._waiting:
                    return await self._reader.receive()
            except TimeoutError:
                if call.done():
                    await call
                if self._loop.time() >= self._moved_at + self._silence:
                    text = f"neither the function nor the client sent anything for {self._silence:g} s"
                    raise Refusal(504, "TIMEOUT", text) from None
            finally:
                self._waiting = None

    def _hurry(self, call: asyncio.Task[Any]) -> None:
        """Wait no longer for a function that has failed."""
        has_failed = not call.cancelled() and call.exception() is not None
        if has_failed and self._waiting is not None:
            self._waiting.reschedule(self._loop.time() + REST_SECONDS)

    async def close(self) -> None:
        """Let go of everything; the function may still run if its answer was whole."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._reader is not None:
            await self._reader.close()


def status_and_headers_from(control: Any) -> tuple[int | None, Headers]:
    """Return what a control message sets; one that is unknown or wrong sets nothing, as in the contract.

    BadResult for headers that are none.
    """
    if not isinstance(control, dict):
        return None, []
    status, headers = control.get("status_code"), control.get("headers")
    if control.get("type") == "set_status" and isinstance(status, int) and 200 <= status <= 599:
        return status, []
    if control.get("type") == "set_headers" and isinstance(headers, dict):
        return None, list(headers_from(headers))
    return None, []


def failure_event(refusal: Refusal, request_id: str) -> bytes:
    """Return the last server-sent event of a stream that has failed."""
    error = {"code": refusal.code, "message": refusal.message, "error_id": request_id}
    return b"event: error\ndata: %s\n\n" % orjson.dumps({"error": error})


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
