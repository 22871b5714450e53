"""A transactional outbox: events that were committed together with their cause, until each has been handled.

An entry holds its ordering key (entries of one key are delivered in order), its targets and the payload, so a delivery
needs nothing but the journal: it goes on after a restart. Delivery is at least once. A target that does not exist is
waited for (its worker reloads, or starts later than this one); a target that answers, even with an error, has had the
event. All methods but `start` and `offer` run on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import asdict
from typing import Any

from iii import InvocationError, Logger
from stdlib_workers.events.background import Background
from stdlib_workers.events.bindings import Caller, Target, Trace, fire
from stdlib_workers.storage import JournalEntry, SqliteJournal
from stdlib_workers.values import decode, encode

TOPIC = "outbox"

# Ordering keys that deliver at the same time; entries of others wait for their turn.
MAX_CONCURRENT_KEYS = 256
# Entries in memory; more wait on the disk.
MAX_IN_MEMORY = 4096
PAGE = 256
# Handled entries are removed together: each commit costs an fsync.
REMOVE_DEBOUNCE = 0.25
# How long a target that does not exist is waited for, and the time between two attempts, which doubles.
TARGET_TIMEOUT = 60.0
FIRST_RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.05, 2.0

# With these errors the target has not had the event: it is offered again.
_NOT_DELIVERED = frozenset(
    {"function_not_found", "worker_unavailable", "invocation_stopped", "overloaded", "engine_stopping", "SHUTDOWN"}
)


def envelope(ordering_key: str, targets: list[Target], payload: Any, trace: Trace | None = None) -> bytes:
    """Return the journal entry of an event, with the trace of what caused it. Pure."""
    set_fields = [{key: value for key, value in asdict(target).items() if value is not None} for target in targets]
    entry = {"lane": ordering_key, "targets": set_fields, "payload": payload}
    return encode({**entry, "trace": trace} if trace else entry)


class Outbox:
    """Delivers the journal's `outbox` entries through a worker."""

    def __init__(self, journal: SqliteJournal, worker: Caller, background: Background) -> None:
        self._journal = journal
        self._worker = worker
        self._background = background
        self._log = Logger(service_name="outbox")
        self._by_key: dict[str, deque[JournalEntry]] = {}
        self._permits = asyncio.Semaphore(MAX_CONCURRENT_KEYS)
        self._last = 0  # the highest position that has been in memory
        self._in_memory = 0
        self._is_behind = True  # there are entries on the disk that memory has not had
        self._is_reading = False
        self._has_missed = False  # an entry was offered and not taken since the last page was asked for
        self._handled: list[int] = []

    def start(self) -> None:
        """Deliver what an earlier process has left, then whatever is offered."""
        self._background.call(lambda: self._background.start(self._catch_up()))

    def offer(self, entries: list[JournalEntry]) -> None:
        """Take entries that have just been committed, in the order of their positions. Safe on any thread."""
        self._background.call(self._take, entries)

    def _take(self, entries: list[JournalEntry]) -> None:
        for entry in entries:
            if self._is_behind or self._in_memory >= MAX_IN_MEMORY:
                self._is_behind = self._has_missed = True
                return
            self._add(entry)

    def _add(self, entry: JournalEntry) -> None:
        if entry.position <= self._last:
            return
        self._last = entry.position
        self._in_memory += 1
        ordering_key = decode(entry.body)["lane"]
        if ordering_key in self._by_key:
            self._by_key[ordering_key].append(entry)
        else:
            self._by_key[ordering_key] = deque([entry])
            self._background.start(self._drain(ordering_key))

    async def _catch_up(self) -> None:
        """Read from the disk until memory is full, or has had everything."""
        if self._is_reading:
            return
        self._is_reading = True
        while self._in_memory < MAX_IN_MEMORY:
            # An entry that is committed from here on may be missing in the page: its offer comes before the page does.
            self._has_missed = False
            page = await self._journal.read(TOPIC, self._last, PAGE)
            for entry in page:
                self._add(entry)
            if len(page) < PAGE and not self._has_missed:
                self._is_behind = False
                break
        self._is_reading = False

    async def _drain(self, ordering_key: str) -> None:
        queue = self._by_key[ordering_key]
        async with self._permits:
            while queue:
                entry = queue[0]
                event = decode(entry.body)
                for fields in event["targets"]:
                    if not await self._reach(Target(**fields), event["payload"], event.get("trace")):
                        return
                queue.popleft()
                self._in_memory -= 1
                if not self._handled:
                    self._background.loop.call_later(REMOVE_DEBOUNCE, self._remove_handled)
                self._handled.append(entry.position)
                if self._is_behind and self._in_memory <= MAX_IN_MEMORY // 2 and not self._is_reading:
                    self._background.start(self._catch_up())
        del self._by_key[ordering_key]

    async def _reach(self, target: Target, payload: Any, trace: Trace | None) -> bool:
        """Bring an event to one target. False when this process is about to end."""
        loop = asyncio.get_running_loop()
        interval, deadline = FIRST_RETRY_INTERVAL, loop.time() + TARGET_TIMEOUT
        while True:
            try:
                await fire(self._worker, target, payload, trace)
                return True
            except InvocationError as error:
                if error.code == "SHUTDOWN":
                    return False
                # A handler that itself called a missing function has had the event.
                is_callees_own = error.code == "function_not_found" and target.function_id not in error.message
                if error.code not in _NOT_DELIVERED or is_callees_own:
                    return True  # it has had the event, and failed: the engine has told of that
                if loop.time() >= deadline:
                    self._log.warn(f"an event did not reach {target.function_id}: {error}")
                    return True
            await asyncio.sleep(interval)
            interval = min(interval * 2, MAX_RETRY_INTERVAL)

    def _remove_handled(self) -> None:
        positions, self._handled = self._handled, []
        self._journal.remove(positions)
