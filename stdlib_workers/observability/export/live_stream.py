"""Spans for screens that show traces as they happen: `stream::send` to three streams of the stream worker.

The newest spans of each window are sent. Without a stream worker nothing is sent until the next attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from iii import InvocationError
from stdlib_workers.events import Caller
from stdlib_workers.observability.ingest.batches import Batch
from stdlib_workers.observability.records.spans import SpanRow, span_json

ROWS, ALL, TRACE = "iii:devtools:trace-rows", "iii:devtools:all-spans", "iii:devtools:trace-spans"
SEND_WINDOW = 0.3
# Of one window: more changes than a screen can show.
MAX_SPANS = 500
# After `stream::send` has failed: most projects have no stream worker.
RETRY_INTERVAL = 30.0


def messages_from(rows: Iterable[SpanRow]) -> Iterator[dict[str, Any]]:
    """Yield the payloads of `stream::send` that bring some spans to the three streams. Pure."""
    spans = [(row, span_json(row)) for row in rows]
    by_trace: dict[str, list[dict[str, Any]]] = {}
    for row, span in spans:
        by_trace.setdefault(row.trace, []).append(span)
    groups = [
        (ROWS, "all", [span for row, span in spans if row.parent is None and not row.internal]),
        (ALL, "all", [span for _, span in spans]),
        *((TRACE, trace, trace_spans) for trace, trace_spans in by_trace.items()),
    ]
    for stream, group, group_spans in groups:
        if group_spans:
            yield {"stream_name": stream, "group_id": group, "type": "spans", "data": {"spans": group_spans}}


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
        rows, self._queued = self._queued, []
        try:
            for message in messages_from(rows):
                await self._caller.trigger_async("stream::send", message)
        except InvocationError:
            self._paused_until = asyncio.get_running_loop().time() + RETRY_INTERVAL
        finally:
            self._is_sending = False
