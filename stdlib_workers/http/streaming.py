"""A request whose function answers through a channel: texts set status and headers, the first bytes commit them.

Until then a result of the function wins, and its failure is the answer. Afterwards the stream counts, and it is whole
only if the function was: an answer that its function fails in, or falls silent in, ends without its end. The files of a
multipart form are channels too. A client that leaves closes the reader, and the function's next write fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import orjson

from iii import InvocationError
from stdlib_workers.http.bodies import File, is_parsed, parse_body
from stdlib_workers.http.calls import Terms, Trigger, call_function
from stdlib_workers.http.channels import ChannelEnd, Channels, write_all
from stdlib_workers.http.replies import Headers, Refusal, Reply, headers_from, refusal_from, reply_from
from stdlib_workers.http.requests import Disconnected, Request
from stdlib_workers.http.routes import Route

# What one request may open; a form of a thousand files would take the descriptors of everybody else.
MAX_FILES = 32
# A writer's piece; the engine takes no message of any size.
PIECE = 64 * 1024
# A function that has closed its stream and still runs has written all it wanted, unless it fails in this time. The
# client does not wait for longer: of a later failure only the log hears.
OUTCOME_SECONDS = 1.0
# Within this a channel hands over what was written before its function failed.
REST_SECONDS = 0.2
EVENTS = b"text/event-stream"


class StreamFailed(Exception):
    """An answer that has begun and cannot be completed; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Stream:
    """One such request. `open` before the function is called, then `reply`; `close` in any case.

    `silence` is how many seconds the function and the client may both be silent. `warn` is told of a function that
    fails when the client has its answer already.
    """

    def __init__(self, channels: Channels, request: Request, silence: float, warn: Callable[[str], None]) -> None:
        self._channels = channels
        self._request = request
        self._silence = silence
        self._warn = warn
        self._loop = asyncio.get_running_loop()
        self._moved_at = self._loop.time()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._files: list[tuple[dict[str, Any], bytes]] = []
        self._status = 200
        self._headers: dict[bytes, Headers] = {}
        self._reader: ChannelEnd | None = None
        self._waiting: asyncio.Timeout | None = None
        self._is_gone = False

    async def open(self, payload: dict[str, Any]) -> None:
        """Give the payload its two references and begin to pass the body on. ChannelBroken without channels."""
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

    def _file_value(self, file: File) -> dict[str, Any]:
        if len(self._files) == MAX_FILES:
            raise Refusal(413, "PAYLOAD_TOO_LARGE", f"the form has more than {MAX_FILES} files")
        self._files.append((file.facts, file.content))
        return self._files[-1][0]

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

    async def reply(self, trigger: Trigger, route: Route, payload: dict[str, Any], terms: Terms) -> Reply:
        """Call the function and return what it answers, by a result or as a stream."""
        call = self._start(call_function(trigger, route.function_id, payload, route, terms, is_endless=True))
        first = self._start(self._first_bytes())
        try:
            async with asyncio.timeout(terms.remaining_ms / 1000):
                await asyncio.wait({call, first}, return_when=asyncio.FIRST_COMPLETED)
                if not first.done() or first.result() is None:
                    result = await _result_of(call)
                    if result is not None:
                        return reply_from(result)
                head = await first
        except TimeoutError:
            raise Refusal(504, "TIMEOUT", f"{route.function_id} neither returned nor wrote in time") from None
        headers = [header for named in self._headers.values() for header in named]
        return Reply(self._status, headers, chunks=self._chunks(head, call))

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
            named: dict[bytes, Headers] = {}
            for header in headers:
                named.setdefault(header[0], []).append(header)
            self._headers.update(named)

    async def _chunks(self, head: bytes | None, call: asyncio.Task[Any]) -> AsyncIterator[bytes]:
        """Yield the bytes to their end. StreamFailed when that is not the one the function wanted; Disconnected."""
        call.add_done_callback(self._hurry)
        item: str | bytes | None = head
        while item is not None:
            if isinstance(item, bytes):
                yield item
            item = await self._next(call)
        if self._is_gone:
            raise Disconnected
        await asyncio.wait({call}, timeout=OUTCOME_SECONDS)
        await self._check(call)
        self._tasks.discard(call)  # it may go on
        call.add_done_callback(self._tell_late_failure)

    async def _next(self, call: asyncio.Task[Any]) -> str | bytes | None:
        """Return the next item, None at the end. StreamFailed once the function has failed, or all is silent."""
        assert self._reader is not None
        self._moved_at = self._loop.time()
        while True:
            has_failed = call.done() and call.exception() is not None
            end = self._loop.time() + REST_SECONDS if has_failed else self._moved_at + self._silence
            try:
                async with asyncio.timeout_at(end) as self._waiting:
                    return await self._reader.receive()
            except TimeoutError:
                await self._check(call)
                if self._loop.time() >= self._moved_at + self._silence:
                    text = f"neither the function nor the client sent anything for {self._silence:g} s"
                    raise StreamFailed(Refusal(504, "TIMEOUT", text)) from None
            finally:
                self._waiting = None

    def _hurry(self, call: asyncio.Task[Any]) -> None:
        """Wait no longer for a function that has failed."""
        if self._waiting is not None and not call.cancelled() and call.exception() is not None:
            self._waiting.reschedule(self._loop.time() + REST_SECONDS)

    def _tell_late_failure(self, call: asyncio.Task[Any]) -> None:
        if not call.cancelled() and (error := call.exception()) is not None:
            request = self._request
            self._warn(
                f"{request.method} {request.path}: the client has the whole answer; after it {error} ({request.id})"
            )

    async def _check(self, call: asyncio.Task[Any]) -> None:
        try:
            if call.done():
                await _result_of(call)
        except Refusal as refusal:
            raise StreamFailed(refusal) from None

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


async def _result_of(call: asyncio.Task[Any]) -> Any:
    try:
        return await call
    except InvocationError as error:
        raise refusal_from(error) from None


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
