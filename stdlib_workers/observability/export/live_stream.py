"""Spans for screens that show traces as they happen: `stream::send` to three streams of the stream worker.

The newest spans of each window are sent. Without a stream worker nothing is sent until the next attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple

from iii import InvocationError
from stdlib_workers.events import Caller
from stdlib_workers.observability.records.batch import Batch
from stdlib_workers.observability.records.spans import SpanRow, span_json

ROWS, ALL, TRACE = "iii:devtools:trace-rows", "iii:devtools:all-spans", "iii:devtools:trace-spans"
SEND_WINDOW = 0.3
# Of one window: more changes than a screen can show.
MAX_SPANS = 500
# After `stream::send` has failed: most projects have no stream worker.
RETRY_INTERVAL = 30.0


class Message(NamedTuple):
    """The spans for one group of a stream."""

    stream: str
    group: str
    spans: list[dict[str, Any]]

    def payload(self) -> dict[str, Any]:
        """Return the payload of `stream::send`."""
        return {
            "stream_name": self.stream,
            "group_id": self.group,
            "type": "spans",
            "data": {"spans": self.spans},
        }


def messages_from(rows: Iterable[SpanRow]) -> Iterator[Message]:
    """Yield the messages to the three streams. Pure."""
    spans = [(row, span_json(row)) for row in rows]
    roots = [span for row, span in spans if row.parent is None and not row.internal]
    if roots:
        yield Message(ROWS, "all", roots)
    if spans:
        yield Message(ALL, "all", [span for _, span in spans])
    by_trace: dict[str, list[dict[str, Any]]] = {}
    for row, span in spans:
        by_trace.setdefault(row.trace, []).append(span)
    for trace, trace_spans in by_trace.items():
        yield Message(TRACE, trace, trace_spans)


class LiveStream:
    """Subscribed to the pipeline; runs on the background loop."""

    def __init__(self, caller: Caller, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._caller = caller
        self._start = start
        self._queued: list[SpanRow] = []
        self._is_sending = False
        self._paused_until = 0.0

    def on_batch(self, batch: Batch) -> None:
        """Queue the spans, and send the newest ones when the window is over."""
        loop = asyncio.get_running_loop()
        if not batch.spans or loop.time() < self._paused_until:
            return
        self._queued = [*self._queued, *batch.spans][-MAX_SPANS:]
        if not self._is_sending:
            self._is_sending = True
            loop.call_later(SEND_WINDOW, lambda: self._start(self.send()))

    async def send(self) -> None:
        """Send the queued spans."""
        rows, self._queued = self._queued, []
        try:
            for message in messages_from(rows):
                await self._caller.trigger_async("stream::send", message.payload())
        except InvocationError:
            self._paused_until = asyncio.get_running_loop().time() + RETRY_INTERVAL
        finally:
            self._is_sending = False
