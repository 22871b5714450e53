"""A transactional outbox: events that were committed together with their cause, until each has been handled.

An entry holds its ordering key (entries of one key are delivered in order), its targets and the payload, so a delivery
needs nothing but the journal: it goes on after a restart. Delivery is at least once. A target that answers, even with
an error, has had the event. One that is away (its worker restarts, or starts later than this one) keeps nobody else
waiting: its events move to a topic of its own, `absent_targets.py`. All methods but `start` and `offer` run on one
event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import asdict
from typing import Any

from iii import InvocationError, Logger
from stdlib_workers.events.absent_targets import AbsentTargets, Line, line_for
from stdlib_workers.events.background import Background
from stdlib_workers.events.bindings import Caller, Target, Trace
from stdlib_workers.events.delivery import Delivery, Holder, Outcome
from stdlib_workers.storage import UNUSABLE, JournalEntry, SqliteJournal
from stdlib_workers.values import decode, encode

TOPIC = "outbox"

# Ordering keys that deliver at the same time; entries of others wait for their turn.
MAX_CONCURRENT_KEYS = 256
# Entries in memory; more wait on the disk.
MAX_IN_MEMORY = 4096
# Entries that may wait on the disk for handlers that are too slow; of more, the oldest are dropped.
MAX_ENTRIES = 1_000_000
PAGE = 256
# Handled entries are removed together: each commit costs an fsync.
REMOVE_DEBOUNCE = 0.25


def envelope(ordering_key: str, targets: list[Target], payload: Any, trace: Trace | None = None) -> bytes:
    """Return the journal entry of an event, with the trace of what caused it. Pure."""
    set_fields = [{key: value for key, value in asdict(target).items() if value is not None} for target in targets]
    entry = {"lane": ordering_key, "targets": set_fields, "payload": payload}
    return encode({**entry, "trace": trace} if trace else entry)


class Outbox:
    """Delivers the journal's `outbox` entries through a worker. `holder` knows the bindings."""

    def __init__(self, journal: SqliteJournal, worker: Caller, background: Background, holder: Holder) -> None:
        self._journal = journal
        self._background = background
        self._log = Logger(service_name="outbox")
        self._delivery = Delivery(worker, holder)
        self._absent = AbsentTargets(journal, self._delivery, holder, background)
        self._by_key: dict[str, deque[JournalEntry]] = {}
        self._permits = asyncio.Semaphore(MAX_CONCURRENT_KEYS)
        self._last = 0  # the highest position that has been in memory
        self._in_memory = 0
        self._on_disk = 0  # entries of the topic, those in memory among them
        self._dropped = 0
        self._is_behind = True  # there are entries on the disk that memory has not had
        self._is_reading = False
        self._has_missed = False  # an entry was offered and not taken since the last page was asked for
        self._handled: list[int] = []

    def start(self) -> None:
        """Deliver what an earlier process has left, then whatever is offered."""
        self._background.call(lambda: self._background.start(self._begin()))

    def offer(self, entries: list[JournalEntry]) -> None:
        """Take entries that have just been committed, in the order of their positions. Safe on any thread."""
        self._background.call(self._take, entries)

    async def _begin(self) -> None:
        # Before anything is delivered: it must go behind what waits already.
        await self._absent.load()
        self._on_disk += (await self._journal.size(TOPIC))[0]
        await self._catch_up()

    def _take(self, entries: list[JournalEntry]) -> None:
        self._on_disk += len(entries)
        if self._on_disk > MAX_ENTRIES:
            self._background.start(self._drop_oldest())
        for entry in entries:
            if self._is_behind or self._in_memory >= MAX_IN_MEMORY:
                self._is_behind = self._has_missed = True
                return
            self._add(entry)

    async def _drop_oldest(self) -> None:
        """Drop the oldest entries that memory has not had."""
        page = await self._journal.read(TOPIC, self._last, PAGE)
        if self._on_disk <= MAX_ENTRIES or not page:
            return
        self._on_disk -= len(page)
        if self._dropped == 0:
            text = f"more than {MAX_ENTRIES} events wait for handlers that are too slow: the oldest are dropped"
            self._log.error(text)
        self._dropped += len(page)
        await self._journal.remove([entry.position for entry in page])

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
                if self._dropped:
                    self._log.warn(f"the event handlers keep up again; {self._dropped} events were dropped")
                    self._dropped = 0
                break
        self._is_reading = False

    async def _drain(self, ordering_key: str) -> None:
        queue = self._by_key[ordering_key]
        async with self._permits:
            while queue:
                entry = queue[0]
                try:
                    if not await self._handle(entry):
                        return
                except InvocationError as error:
                    if error.code != UNUSABLE:
                        self._log.error(f"an event could not be moved to where absent handlers find it: {error}")
                    return  # the store is closed or has failed: the next process goes on
                queue.popleft()
                self._in_memory -= 1
                self._on_disk -= 1
                if self._is_behind and self._in_memory <= MAX_IN_MEMORY // 2 and not self._is_reading:
                    self._background.start(self._catch_up())
        del self._by_key[ordering_key]

    async def _handle(self, entry: JournalEntry) -> bool:
        """Bring an event to its targets, one after the other. False when this process is about to end."""
        event = decode(entry.body)
        lines: list[Line] = []
        for fields in event["targets"]:
            target = Target(**fields)
            outcome = Outcome.AWAY
            if not self._absent.is_waiting(target):
                outcome = await self._delivery.attempt(target, event, entry.position)
            if outcome is Outcome.ENDING:
                return False
            if outcome is Outcome.AWAY:
                lines.append(line_for(target, event))
        if lines:
            await self._absent.take(entry.position, lines)
            return True
        if not self._handled:
            self._background.loop.call_later(REMOVE_DEBOUNCE, self._remove_handled)
        self._handled.append(entry.position)
        return True

    def _remove_handled(self) -> None:
        positions, self._handled = self._handled, []
        self._journal.remove(positions)
