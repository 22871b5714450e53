"""Events that were committed together with their cause, delivered in order per lane, until each has been handled.

An entry names its lane (what must stay in order), its targets and the payload, so a delivery needs nothing but the
journal: it goes on after a restart. Delivery is at least once. A target that is not there is waited for a while (its
worker reloads, or starts later than this one); one that answers, even with an error, has had the event.
All of this runs on one event loop; `offer` is handed over to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from iii import InvocationError, Logger
from stdlib_workers.events.background import Background
from stdlib_workers.events.firing import Caller, Target, Trace, fire
from stdlib_workers.storage import Journal, JournalEntry
from stdlib_workers.values import decode, encode

TOPIC = "outbox"

# Lanes that deliver at the same time; others wait for their turn.
MAX_LANES = 256
# Entries held in memory; more wait on the disk.
MAX_HELD = 4096
PAGE = 256
# Handled entries are forgotten together: each commit costs an fsync.
FORGET_SECONDS = 0.25
# How long a target that does not exist is waited for, and how often it is looked for.
PATIENCE_SECONDS = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0

# Nobody has had the event: it is offered again.
_NOT_DELIVERED = frozenset(
    {"function_not_found", "worker_unavailable", "invocation_stopped", "overloaded", "engine_stopping", "SHUTDOWN"}
)


def envelope(lane: str, targets: list[Target], payload: Any, trace: Trace | None = None) -> bytes:
    """Return the journal entry of an event, with the trace of what caused it. Pure."""
    entry = {"lane": lane, "targets": [target.as_json() for target in targets], "payload": payload}
    return encode({**entry, "trace": trace} if trace else entry)


class Outbox:
    """Delivers the journal's `outbox` entries through a worker."""

    def __init__(self, journal: Journal, worker: Caller, background: Background) -> None:
        self._journal = journal
        self._worker = worker
        self._background = background
        self._log = Logger(service_name="outbox")
        self._lanes: dict[str, deque[JournalEntry]] = {}
        self._slots = asyncio.Semaphore(MAX_LANES)
        self._last = 0
        self._held = 0
        self._is_behind = True
        self._is_reading = False
        self._has_missed = False
        self._handled: list[int] = []

    def start(self) -> None:
        """Take up what an earlier process has left, then whatever is offered."""
        self._background.call(lambda: self._background.start(self._catch_up()))

    def offer(self, entries: list[JournalEntry]) -> None:
        """Take entries that have just been committed, in the order of their positions. Safe on any thread."""
        self._background.call(self._take, entries)

    def _take(self, entries: list[JournalEntry]) -> None:
        for entry in entries:
            if self._is_behind or self._held >= MAX_HELD:
                self._is_behind = self._has_missed = True
                return
            self._enter(entry)

    def _enter(self, entry: JournalEntry) -> None:
        if entry.position <= self._last:
            return
        self._last = entry.position
        self._held += 1
        lane = decode(entry.body)["lane"]
        if lane in self._lanes:
            self._lanes[lane].append(entry)
        else:
            self._lanes[lane] = deque([entry])
            self._background.start(self._drain(lane))

    async def _catch_up(self) -> None:
        """Read from the disk until memory is full, or nothing is left there that memory does not have."""
        if not self._is_reading:
            self._is_reading = True
            await self._read_pages()
            self._is_reading = False

    async def _read_pages(self) -> None:
        while self._held < MAX_HELD:
            # What is committed from here on may not be in the page: its offer comes before the page does.
            self._has_missed = False
            page = await self._journal.read(TOPIC, self._last, PAGE)
            for entry in page:
                self._enter(entry)
            if len(page) < PAGE and not self._has_missed:
                self._is_behind = False
                return

    async def _drain(self, lane: str) -> None:
        queue = self._lanes[lane]
        async with self._slots:
            while queue:
                entry = queue[0]
                if not await self._deliver(entry):
                    return
                queue.popleft()
                self._finish(entry)
        del self._lanes[lane]

    async def _deliver(self, entry: JournalEntry) -> bool:
        """Bring one event to all its targets, one after the other; False when this process is about to end."""
        event = decode(entry.body)
        for fields in event["targets"]:
            if not await self._reach(Target(**fields), event["payload"], event.get("trace")):
                return False
        return True

    async def _reach(self, target: Target, payload: Any, trace: Trace | None) -> bool:
        loop = asyncio.get_running_loop()
        pause, give_up = FIRST_PAUSE, loop.time() + PATIENCE_SECONDS
        while True:
            try:
                await fire(self._worker, target, payload, trace)
                return True
            except InvocationError as error:
                if error.code == "SHUTDOWN":
                    return False
                if loop.time() >= give_up or not _is_undelivered(error, target):
                    self._log.warn(f"an event did not reach {target.function_id}: {error}")
                    return True
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _finish(self, entry: JournalEntry) -> None:
        self._held -= 1
        if not self._handled:
            self._background.loop.call_later(FORGET_SECONDS, self._forget)
        self._handled.append(entry.position)
        if self._is_behind and self._held <= MAX_HELD // 2 and not self._is_reading:
            self._background.start(self._catch_up())

    def _forget(self) -> None:
        positions, self._handled = self._handled, []
        self._journal.remove(positions)

    def __repr__(self) -> str:
        return f"<Outbox {self._held} held, {len(self._lanes)} lanes>"


def _is_undelivered(error: InvocationError, target: Target) -> bool:
    # A handler that itself met a missing function has had the event.
    is_about_other = error.code == "function_not_found" and target.function_id not in error.message
    return error.code in _NOT_DELIVERED and not is_about_other
