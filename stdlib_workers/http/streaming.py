"""A request whose function answers through a channel: texts set status and headers, the first bytes commit them.

Until then a result of the function wins, and its failure is the answer; afterwards only the stream counts. The files
of a multipart form are channels too. A client that leaves closes the reader, and the function's next write fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any

import orjson

from iii import InvocationError
from stdlib_workers.http.bodies import File, is_parsed, parse_body
from stdlib_workers.http.calls import Terms, Trigger, call_function
from stdlib_workers.http.channels import ChannelEnd, Channels, items_of, status_and_headers_from, write_all
from stdlib_workers.http.failures import Refusal, refusal_from
from stdlib_workers.http.intake import Body, Disconnected
from stdlib_workers.http.replies import Reply, header, reply_from
from stdlib_workers.http.requests import Request
from stdlib_workers.http.routes import Route

# What one request may open; a form of a thousand files would take the descriptors of everybody else.
MAX_FILES = 32
# A writer's piece; the engine takes no message of any size.
PIECE = 64 * 1024


class Stream:
    """One such request. `open` before the function is called, then `reply`; `close` in any case."""

    def __init__(self, channels: Channels, body: Body) -> None:
        self._channels = channels
        self._body = body
        self._tasks: set[asyncio.Task[Any]] = set()
        self._files: list[tuple[dict[str, Any], bytes]] = []
        self._status = 200
        self._headers: dict[str, str] = {}
        self._reader: ChannelEnd | None = None

    async def open(self, request: Request, payload: dict[str, Any]) -> None:
        """Give the payload its two references and begin to pass the body on. ChannelBroken without channels."""
        (body_writer, body_reader), (writer, reader) = await asyncio.gather(
            self._channels.make(), self._channels.make()
        )
        payload["request_body"], payload["response"] = body_reader, writer
        content_type = request.headers.get("content-type", "")
        chunks = self._body.chunks(request)
        if is_parsed(content_type):
            whole = b"".join([chunk async for chunk in chunks])
            payload["body"] = parse_body(content_type, whole, self._file_value)
            chunks = _pieces(whole)
        for value, content in self._files:
            await self._open_file(value, content)
        self._reader = await self._channels.open(reader)
        self._start(self._pass_on(await self._channels.open(body_writer), chunks, self._reader))

    def _file_value(self, file: File) -> dict[str, Any]:
        if len(self._files) == MAX_FILES:
            raise Refusal(413, "PAYLOAD_TOO_LARGE", f"the form has more than {MAX_FILES} files")
        self._files.append((file.facts, file.content))
        return self._files[-1][0]

    async def _open_file(self, value: dict[str, Any], content: bytes) -> None:
        """Complete a file's value by the reader of its content, and begin to write that."""
        writer, value["content"] = await self._channels.make()
        self._start(write_all(await self._channels.open(writer), _pieces(content)))

    async def _pass_on(self, end: ChannelEnd, chunks: AsyncIterator[bytes], reader: ChannelEnd) -> None:
        with suppress(Disconnected):
            await write_all(end, chunks)
            await self._body.wait_until_gone()
        await reader.close()

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        return task

    async def reply(self, trigger: Trigger, route: Route, payload: dict[str, Any], terms: Terms) -> Reply:
        """Call the function and return what it answers, by a result or as a stream."""
        assert self._reader is not None
        items = items_of(self._reader)
        call = self._start(call_function(trigger, route.function_id, payload, route, terms))
        first = self._start(self._first_bytes(items))
        await asyncio.wait({call, first}, timeout=terms.remaining_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
        if not first.done() or first.result() is None:
            result = await _result_of(call)
            if result is not None:
                return reply_from(result)
        try:
            async with asyncio.timeout(terms.remaining_ms / 1000):
                head = await first
        except TimeoutError:
            raise Refusal(504, "TIMEOUT", f"{route.function_id} neither returned nor wrote in time") from None
        headers = [header(name, value) for name, value in self._headers.items()]
        return Reply(self._status, headers, chunks=self._chunks(head, items))

    async def _first_bytes(self, items: AsyncIterator[str | bytes]) -> bytes | None:
        async for item in items:
            if isinstance(item, bytes):
                return item
            self._control(item)
        return None

    def _control(self, text: str) -> None:
        with suppress(orjson.JSONDecodeError):
            control = orjson.loads(text)
            if isinstance(control, dict):
                status, headers = status_and_headers_from(control)
                self._status = status or self._status
                self._headers.update(headers)

    async def _chunks(self, head: bytes | None, items: AsyncIterator[str | bytes]) -> AsyncIterator[bytes]:
        if head is None:
            return
        yield head
        async for item in items:
            if isinstance(item, bytes):
                yield item

    async def close(self) -> None:
        """Let go of everything; the function may still run."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._reader is not None:
            await self._reader.close()


async def _result_of(call: asyncio.Task[Any]) -> Any:
    try:
        return await call
    except InvocationError as error:
        raise refusal_from(error) from None


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]
