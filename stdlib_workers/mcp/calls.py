"""One call of a tool: the function's items as progress and as blocks of the result, its error as the tool's.

A client that has asked for progress gets every item when it comes. The blocks of one result have a bounded size in
all; what does not fit is left out with a word, and the items go on as progress.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple, cast

import anyio
from mcp.server import ServerRequestContext
from mcp.types import CallToolResult, TextContent

from iii import InvocationError, TriggerRequestInput, Worker
from stdlib_workers.mcp.cuts import cut, text_of

# Bytes of one notification of progress.
MAX_PROGRESS = 8 * 1024
# Notifications that wait for a slow client; then the function waits.
MAX_WAITING = 64
# Bytes that a block of a result costs beside its text.
_BLOCK = 64
# Bytes of an error's text.
MAX_ERROR = 8 * 1024


class _Step(NamedTuple):
    done: float | None
    total: float | None
    message: str | None


class _Progress:
    """The notifications of one call: their number always grows, as the protocol wants it."""

    def __init__(self, context: ServerRequestContext[Any, Any]) -> None:
        self._context = context
        self._last = -1e-6
        self._has_reports = False
        self._put, self._get = anyio.create_memory_object_stream[_Step](MAX_WAITING)

    def report(self, report: dict[str, Any]) -> None:
        """Take what the function reports. With a client that is slow, later reports say more than one left out."""
        message = report.get("message")
        step = _Step(report.get("done"), report.get("total"), message if isinstance(message, str) else None)
        try:
            self._put.send_nowait(step)
        except anyio.WouldBlock:
            return

    async def add(self, text: str) -> None:
        """Take an item, and wait with it for a slow client."""
        await self._put.send(_Step(None, None, text))

    def end(self) -> None:
        self._put.close()

    async def send(self) -> None:
        """Send all notifications, until `end`."""
        async with self._get:
            async for step in self._get:
                self._has_reports = self._has_reports or step.done is not None
                # A function that reports progress itself says how far it is; of one that does not, items are counted.
                following = self._last + 1e-6 if self._has_reports else max(self._last, 0) + 1
                self._last = max(following, float(step.done)) if step.done is not None else following
                await self._context.session.report_progress(self._last, step.total, step.message)


class _Blocks:
    """The blocks of a result, `most` bytes in all."""

    def __init__(self, most: int) -> None:
        self._room = most
        self._most = most
        self._left_out = 0
        self._texts: list[str] = []

    def add(self, text: str) -> None:
        size = len(text.encode("utf-8", "replace")) + _BLOCK
        if self._left_out or (self._texts and size > self._room):
            self._left_out += 1
            return
        self._texts.append(cut(text, self._room))
        self._room -= size

    def structured(self, value: Any) -> CallToolResult:
        """Return a result that its tool's schema describes, whole.

        One that is too long, or no object, cannot be that: it is a failed result with the text that there is room for.
        """
        text = text_of(value)
        self.add(text)
        is_whole = isinstance(value, dict) and self._texts == [text]
        result = self.result()
        result.structured_content, result.is_error = (value, False) if is_whole else (None, True)
        return result

    def result(self) -> CallToolResult:
        texts = self._texts or ["null"]
        if self._left_out:
            texts = [*texts, f"[cut: {self._left_out} more items, the limit of a result is {self._most} bytes]"]
        return CallToolResult(content=[TextContent(type="text", text=text) for text in texts])


async def call_tool(
    worker: Worker,
    context: ServerRequestContext[Any, Any],
    request: TriggerRequestInput,
    max_result: int,
    *,
    is_structured: bool,
) -> CallToolResult:
    """Call a function and return its result as one block, or its items as one block each. A failure is a result, too.

    With `is_structured` the result is an object by its schema, and returned as one beside the block. When the client
    cancels, the call is cancelled.
    """
    blocks = _Blocks(max_result)
    progress = _Progress(context) if "progress_token" in (context.meta or {}) else None
    error: InvocationError | None = None
    results: list[Any] = []
    async with anyio.create_task_group() as tasks:
        if progress is not None:
            tasks.start_soon(progress.send)
        stream = worker.stream_async(
            request,
            on_progress=None if progress is None else progress.report,
            on_result=results.append if is_structured else None,
        )
        try:
            # An async generator, which `aclosing` ends when the client cancels; the SDK promises an iterator only.
            async with aclosing(cast("AsyncGenerator[Any]", stream)) as items:
                await _take(items, blocks, progress)
        except InvocationError as raised:
            error = raised
        finally:
            if progress is not None:
                progress.end()
    if error is not None:
        return failure(error)
    return blocks.structured(results[0] if results else None) if is_structured else blocks.result()


async def _take(items: AsyncIterator[Any], blocks: _Blocks, progress: _Progress | None) -> None:
    async for item in items:
        text = text_of(item)
        blocks.add(text)
        if progress is not None:
            await progress.add(cut(text, MAX_PROGRESS))


def failure(error: InvocationError) -> CallToolResult:
    """Return the result of a tool that has failed: the code, the message and the details of its error."""
    text = f"{error.code}: {error.message}"
    if error.details:
        text += f"\ndetails: {text_of(error.details)}"
    return CallToolResult(content=[TextContent(type="text", text=cut(text, MAX_ERROR))], is_error=True)
