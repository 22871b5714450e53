"""The side feed for screens that show traces as they happen: `stream::send` to three streams of the stream worker.

Sent in windows, the newest spans of each; without a stream worker it stays quiet and looks again after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple

from iii import InvocationError
from stdlib_workers.events import Caller
from stdlib_workers.observability.ingest.batches import Intake
from stdlib_workers.observability.records.spans import SpanRow, shape_from

ROWS, ALL, TRACE = "iii:devtools:trace-rows", "iii:devtools:all-spans", "iii:devtools:trace-spans"
WINDOW = 0.3
# Spans of one window that a screen can make sense of.
MAX_SPANS = 500
# Seconds until a stream worker that was not there is looked for again.
PATIENCE = 30.0


class Message(NamedTuple):
    """What one group is told."""

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
    """Yield what the three streams are told of some spans. Pure."""
    shapes = [(row, shape_from(row)) for row in rows]
    roots = [shape for row, shape in shapes if row.parent is None and not row.internal]
    if roots:
        yield Message(ROWS, "all", roots)
    if shapes:
        yield Message(ALL, "all", [shape for _, shape in shapes])
    by_trace: dict[str, list[dict[str, Any]]] = {}
    for row, shape in shapes:
        by_trace.setdefault(row.trace, []).append(shape)
    for trace, spans in by_trace.items():
        yield Message(TRACE, trace, spans)


class LiveFeed:
    """Follows the pipeline; everything on the background loop."""

    def __init__(self, caller: Caller, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._caller = caller
        self._start = start
        self._waiting: list[SpanRow] = []
        self._is_sending = False
        self._quiet_until = 0.0

    def take(self, intake: Intake) -> None:
        """Remember the newest spans and send them when the window is over."""
        loop = asyncio.get_running_loop()
        if not intake.spans or loop.time() < self._quiet_until:
            return
        self._waiting = [*self._waiting, *intake.spans][-MAX_SPANS:]
        if not self._is_sending:
            self._is_sending = True
            loop.call_later(WINDOW, lambda: self._start(self.send()))

    async def send(self) -> None:
        """Send what waits."""
        rows, self._waiting = self._waiting, []
        try:
            for message in messages_from(rows):
                await self._caller.trigger_async("stream::send", message.payload())
        except InvocationError:
            self._quiet_until = asyncio.get_running_loop().time() + PATIENCE
        finally:
            self._is_sending = False
