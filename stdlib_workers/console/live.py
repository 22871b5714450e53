"""What happens in the project, told to the open pages: triggers of the engine and of the standard workers feed it.

Bound while a page is open, so that a console that nobody looks at costs nothing. A page hears what has changed and asks
again for what it shows; log records are sent whole. Everything runs on one event loop, but for `on_event`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from iii import InvocationError, Worker, current_invocation
from iii.declarations import Declarations
from stdlib_workers.values import encode

# The function of each trigger type; every one is the same handler.
FUNCTIONS = {
    "engine::functions-available": "console::on-functions",
    "engine::workers-available": "console::on-workers",
    "trace": "console::on-traces",
    "log": "console::on-log",
    "state": "console::on-state",
}
_TYPES = {function_id: type for type, function_id in FUNCTIONS.items()}
# What a page calls them.
TOPICS = {
    "engine::functions-available": "functions",
    "engine::workers-available": "workers",
    "state": "state",
}
# What only the page hears that asks for it by name: the calls that tell of it are parts of the project's own traces.
ON_REQUEST = {"state": frozenset({"state"})}
ALWAYS = frozenset(FUNCTIONS) - {"state"}
# Seconds between two tellings: what comes after a quiet time is told at once, what follows is gathered.
WINDOW = 0.1
# Seconds after which an idle stream says something: a proxy or browser notices a dead connection.
HEARTBEAT = 15.0
# Pages at a time. Bytes of the log records that wait for one page; older ones are left out and counted.
MAX_PAGES, MAX_WAITING = 32, 1024 * 1024
# Ids of changed traces that one page is told of at once; beyond that it is told that any may have changed.
MAX_TRACES = 500
# Bytes of one log record; of a longer one only what and when.
MAX_RECORD = 16 * 1024


class Page:
    """One open stream: the trigger types that it hears of, and what it has still to be told."""

    def __init__(self, types: frozenset[str]) -> None:
        self.types = types
        self.changed: set[str] = set()
        self.traces: set[str] = set()
        self.records: deque[bytes] = deque()
        self.size = self.left_out = 0
        self.awake = asyncio.Event()

    def add_record(self, record: bytes) -> None:
        """Keep a log record until the page takes it."""
        self.records.append(record)
        self.size += len(record)
        while self.size > MAX_WAITING:
            self.size -= len(self.records.popleft())
            self.left_out += 1
        self.awake.set()

    def take(self) -> bytes:
        """Return what is to be told, as server-sent events; nothing without news."""
        events = []
        if self.changed:
            events.append(b"event: changed\ndata: %s\n\n" % encode(sorted(self.changed)))
        if self.traces:
            told = sorted(self.traces) if len(self.traces) <= MAX_TRACES else []
            events.append(b"event: traces\ndata: %s\n\n" % encode(told))
        if self.records:
            events.append(
                b'event: log\ndata: {"left_out":%d,"records":[%s]}\n\n' % (self.left_out, b",".join(self.records))
            )
        self.changed.clear()
        self.traces.clear()
        self.records.clear()
        self.size = self.left_out = 0
        return b"".join(events)


class Live:
    """The open pages, and the bindings that feed them."""

    def __init__(self, worker: Worker, declared: Declarations) -> None:
        self._worker = worker
        self._pages: set[Page] = set()
        self._bound: dict[str, Any] = {}
        self._binding = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        for function_id in _TYPES:
            worker.register_function(
                function_id, self.on_event, metadata={"internal": True}, **declared.functions[function_id]
            )

    @property
    def count(self) -> int:
        """How many pages are open."""
        return len(self._pages)

    def on_event(self, event: Any) -> None:
        """Take what a trigger tells. Called on any thread."""
        invocation = current_invocation()
        if invocation is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell, _TYPES[invocation.function_id], event)

    def _tell(self, type: str, event: Any) -> None:
        if type == "log":
            record = encode(event)
            if len(record) > MAX_RECORD:
                kept = (
                    "timestamp_unix_nano",
                    "severity_number",
                    "severity_text",
                    "service_name",
                    "trace_id",
                    "span_id",
                )
                short = {name: event.get(name) for name in kept}
                record = encode({**short, "body": str(event.get("body"))[:2048], "cut": len(record)})
            for page in self._pages:
                if type in page.types:
                    page.add_record(record)
            return
        if type == "engine::functions-available" and self._loop is not None:
            task = self._loop.create_task(self._bind())  # a trigger type may have come or gone
            task.add_done_callback(lambda done: done.exception())
        for page in self._pages:
            if type not in page.types:
                continue
            if type != "trace":
                page.changed.add(TOPICS[type])
            elif len(page.traces) <= MAX_TRACES:  # else it is told of all
                page.traces.update(event["trace_ids"])
            page.awake.set()

    async def stream(self, types: frozenset[str]) -> AsyncIterator[bytes]:
        """Yield server-sent events about these trigger types until the page goes."""
        self._loop = asyncio.get_running_loop()
        page = Page(types)
        self._pages.add(page)
        try:
            await self._bind()
            # The page asks for what it shows once it has read this: what has changed before is in the answers.
            yield b"retry: 500\nevent: hello\ndata: {}\n\n"
            told_at = 0.0
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT):
                        await page.awake.wait()
                if page.awake.is_set():
                    await asyncio.sleep(max(0.0, told_at + WINDOW - self._loop.time()))
                    told_at = self._loop.time()
                    page.awake.clear()
                yield page.take() or b": idle\n\n"
        finally:
            self._pages.discard(page)
            for type in self._bound.keys() - self._wanted():
                self._bound.pop(type).unregister()

    def _wanted(self) -> frozenset[str]:
        return frozenset[str]().union(*(page.types for page in self._pages))

    async def _bind(self) -> None:
        """Bind what is there to be bound: without the observability worker there are no traces to hear of."""
        async with self._binding:
            try:
                # Unrecorded, as every question of the console.
                found = await self._worker.trigger_async(
                    {
                        "function_id": "engine::trigger-types::list",
                        "payload": {"include_internal": True},
                        "trace": {"traceparent": f"00-{1:032x}-{1:016x}-00"},
                    }
                )
            except InvocationError:
                return  # the engine stops; the pages come again
            wanted = self._wanted() & {row["id"] for row in found["trigger_types"]}
            for type in wanted - self._bound.keys():
                self._bound[type] = self._worker.register_trigger({"type": type, "function_id": FUNCTIONS[type]})
            for type in self._bound.keys() - wanted:
                self._bound.pop(type).unregister()
