"""Events of streams on their way out: into the journal with their cause, then to triggers and to sockets.

Each group keeps its last events, so that a subscriber can go on where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stdlib_workers.events import TOPIC, Bindings, Outbox, Trace, current_trace
from stdlib_workers.events import envelope as outbox_entry
from stdlib_workers.storage import Change, JournalEntry, KeyValue
from stdlib_workers.stream.events import Filter, Place, envelope
from stdlib_workers.values import decode, encode

# A group's log is cut after so many further events: a cut costs more than an event.
TRIM_EVERY = 100


class Logged(NamedTuple):
    """One event of a group as it stands in the journal: `body` is the envelope as JSON."""

    place: Place
    item: str | None
    position: int
    body: bytes


class EventLog:
    """Writes events and tells of them after the commit. `publish` gets each on the storage's thread, in order."""

    def __init__(self, pairs: KeyValue, filters: Bindings[Filter] | Sequence[Filter], history: int) -> None:
        self._pairs = pairs
        self._filters = filters
        self._history = history
        self._since_cut: Counter[str] = Counter()
        self.outbox: Outbox | None = None
        self.publish: Callable[[Logged], None] = _ignore
        pairs.watch(self._on_change)

    def entries(
        self, place: Place, item: str | None, event: dict[str, Any], trace: Trace | None = None
    ) -> list[tuple[str, bytes]]:
        """Return what the journal takes for an event: the group's log, and the outbox if a trigger wants it."""
        message = envelope(place, item, event, int(time.time() * 1000))
        targets = [each.target for each in self._filters if each.wants(place, item)]
        found = [(place.topic, encode(message))]
        if targets:
            found.append((TOPIC, outbox_entry(place.topic, targets, message, trace)))
        return found

    async def write(self, place: Place, item: str | None, event: dict[str, Any]) -> None:
        """Write an event that has no change of an item beside it."""
        await self._pairs.journal.append(
            self.entries(place, item, event, current_trace()), lambda lines: self._tell(lines, item)
        )

    async def since(self, place: Place, offset: int) -> list[Logged] | None:
        """Return the events after `offset`; None when some of them are gone, or the offset is not of this log."""
        latest = await self._pairs.journal.last()
        entries = await self._pairs.journal.read(place.topic, 0, self._history + TRIM_EVERY)
        is_cut = len(entries) >= self._history and entries[0].position > offset
        if offset > latest or is_cut:
            return None
        return [_logged(place, entry) for entry in entries if entry.position > offset]

    async def latest(self) -> int:
        """Return an offset that covers everything committed so far."""
        return await self._pairs.journal.last()

    # After the commit, on the storage's thread

    def _on_change(self, change: Change) -> None:
        self._tell(change.journal, change.key)

    def _tell(self, lines: Sequence[JournalEntry], item: str | None) -> None:
        for line in lines:
            if line.topic != TOPIC:
                place = Place(*decode(line.topic.removeprefix("log").encode()))
                self.publish(Logged(place, item, line.position, line.body))
                self._count(line.topic)
            elif self.outbox is not None:
                self.outbox.offer([line])

    def _count(self, topic: str) -> None:
        self._since_cut[topic] += 1
        if self._since_cut[topic] >= TRIM_EVERY:
            del self._since_cut[topic]
            self._pairs.journal.trim(topic, self._history)


def _logged(place: Place, entry: JournalEntry) -> Logged:
    return Logged(place, decode(entry.body)["id"], entry.position, entry.body)


def _ignore(_: Logged) -> None:
    """Nobody listens yet."""
