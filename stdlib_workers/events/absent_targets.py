"""Events for targets that are away: a topic of the journal for each function, delivered in order when it is back.

They wait as long as the target has a binding: until its worker is back, or gone from iii.toml. What waits is bounded by
count and bytes; what is dropped, the oldest first, is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from iii import Logger
from stdlib_workers.events.background import Background
from stdlib_workers.events.bindings import Target
from stdlib_workers.events.delivery import Delivery, Holder, Outcome
from stdlib_workers.storage import JournalEntry, SqliteJournal
from stdlib_workers.values import decode, encode

PREFIX = "away"
# What may wait for one target.
MAX_ENTRIES = 100_000
MAX_BYTES = 64 * 1024 * 1024
# Events that are delivered at the same time once the target is back, each of another ordering key.
MAX_CONCURRENT = 64
PAGE = 256
# Seconds between two attempts at the first of what waits; doubles.
FIRST_RETRY_INTERVAL, MAX_RETRY_INTERVAL = 0.05, 1.0

# (topic, body): a line of the journal.
Line = tuple[str, bytes]


@dataclass(slots=True)
class _Waiting:
    """What is known of one topic: lines on their way to it, how often there were some, how much it holds."""

    under_way: int = 0
    additions: int = 0
    entries: int = 0
    bytes: int = 0
    dropped: int = 0


class AbsentTargets:
    """The topics of all targets that are away."""

    def __init__(self, journal: SqliteJournal, delivery: Delivery, holder: Holder, background: Background) -> None:
        self._journal = journal
        self._delivery = delivery
        self._holder = holder
        self._background = background
        self._log = Logger(service_name="outbox")
        self._waiting: dict[str, _Waiting] = {}

    async def load(self) -> None:
        """Go on with what an earlier process has left."""
        for topic in await self._journal.topics(PREFIX):
            waiting = self._begin(topic)
            waiting.entries, waiting.bytes = await self._journal.size(topic)

    def is_waiting(self, target: Target) -> bool:
        """Tell whether events wait for a target already: further ones go behind them."""
        return topic_of(target) in self._waiting

    async def take(self, position: int, lines: Sequence[Line]) -> None:
        """Move an event of the outbox to the topics of its absent targets, in one step."""
        for topic, body in lines:
            waiting = self._waiting.get(topic) or self._begin(topic)
            waiting.under_way += 1
            waiting.entries += 1
            waiting.bytes += len(body)
        await self._journal.replace([position], lines)
        for topic, _ in lines:
            waiting = self._waiting[topic]
            waiting.under_way -= 1
            waiting.additions += 1
            if waiting.entries > MAX_ENTRIES or waiting.bytes > MAX_BYTES:
                await self._drop_oldest(topic, waiting)

    def _begin(self, topic: str) -> _Waiting:
        waiting = self._waiting[topic] = _Waiting()
        self._background.start(self._serve(topic, waiting))
        return waiting

    async def _drop_oldest(self, topic: str, waiting: _Waiting) -> None:
        entries = await self._journal.read(topic, 0, PAGE)
        await self._journal.remove([entry.position for entry in entries])
        self._note_removed(waiting, entries)
        if waiting.dropped == 0:
            text = f"too many events wait for {function_of(topic)}, which is away: the oldest are dropped"
            self._log.error(text, {"kept": MAX_ENTRIES, "bytes": MAX_BYTES})
        waiting.dropped += len(entries)

    async def _serve(self, topic: str, waiting: _Waiting) -> None:
        """Deliver what waits, page after page, until nothing does."""
        interval = FIRST_RETRY_INTERVAL
        while True:
            additions = waiting.additions
            page = await self._journal.read(topic, 0, PAGE)
            if not page:
                if waiting.under_way == 0 and waiting.additions == additions:
                    break
                await asyncio.sleep(FIRST_RETRY_INTERVAL)  # until the lines that are on their way are there
                continue
            outcome = await self._try(page[0])
            if outcome is Outcome.ENDING:
                return
            if outcome is Outcome.DONE:
                interval = FIRST_RETRY_INTERVAL
                done = [page[0], *await self._deliver(page[1:])]
                await self._journal.remove([entry.position for entry in done])
                self._note_removed(waiting, done)
            elif self._holder.holds(_target_of(page[0])):
                await asyncio.sleep(interval)
                interval = min(interval * 2, MAX_RETRY_INTERVAL)
            else:
                await self._give_up(topic, waiting, page)
        del self._waiting[topic]
        if waiting.dropped:
            self._log.warn(f"{function_of(topic)} is back; it has missed {waiting.dropped} events that were dropped")

    async def _try(self, entry: JournalEntry) -> Outcome:
        event = decode(entry.body)
        return await self._delivery.attempt(Target(**event["targets"][0]), event, entry.position)

    async def _deliver(self, page: Sequence[JournalEntry]) -> list[JournalEntry]:
        """Deliver a page, in order within each ordering key; returns what was delivered."""
        by_key: dict[str, list[JournalEntry]] = {}
        for entry in page:
            by_key.setdefault(decode(entry.body)["lane"], []).append(entry)
        permits = asyncio.Semaphore(MAX_CONCURRENT)
        done: list[JournalEntry] = []

        async def deliver(entries: list[JournalEntry]) -> None:
            async with permits:
                for entry in entries:
                    if await self._try(entry) is not Outcome.DONE:
                        return
                    done.append(entry)

        await asyncio.gather(*map(deliver, by_key.values()))
        return done

    async def _give_up(self, topic: str, waiting: _Waiting, page: Sequence[JournalEntry]) -> None:
        await self._journal.remove([entry.position for entry in page])
        self._note_removed(waiting, page)
        text = f"{len(page)} events for {function_of(topic)} are dropped: it is away, and no worker binds it any more"
        self._log.warn(text)

    @staticmethod
    def _note_removed(waiting: _Waiting, entries: Sequence[JournalEntry]) -> None:
        waiting.entries -= len(entries)
        waiting.bytes -= sum(len(entry.body) for entry in entries)


def line_for(target: Target, event: dict[str, Any]) -> Line:
    """Return the line of an event that waits for one of its targets."""
    fields = {name: value for name, value in _fields(target).items() if value is not None}
    return topic_of(target), encode({**event, "targets": [fields]})


def topic_of(target: Target) -> str:
    """Return the topic in which events wait for a target's function."""
    return f"{PREFIX}{encode([target.namespace, target.function_id]).decode()}"


def function_of(topic: str) -> str:
    function_id: str = decode(topic.removeprefix(PREFIX).encode())[1]
    return function_id


def _target_of(entry: JournalEntry) -> Target:
    return Target(**decode(entry.body)["targets"][0])


def _fields(target: Target) -> dict[str, Any]:
    return {name: getattr(target, name) for name in target.__slots__}
