"""The events of streams: they are committed to the journal with their cause, then go to triggers and to sockets.

Each group keeps its last events, so that a subscriber can resume where it stopped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stdlib_workers.events import TOPIC, Bindings, Outbox, Trace, current_trace
from stdlib_workers.events import envelope as outbox_entry
from stdlib_workers.storage import JournalEntry, SqliteKeyValue
from stdlib_workers.stream.events import Filter, Group, envelope, group_from
from stdlib_workers.values import decode, encode

# Further events of a group until its log is trimmed: a trim costs more than an event.
TRIM_INTERVAL = 100


class LoggedEvent(NamedTuple):
    """One event of a group as it is in the journal; `body`: the envelope as JSON."""

    group: Group
    item: str | None
    position: int
    body: bytes


class EventLog:
    """Writes events, and publishes them after the commit.

    `filters`: the bindings of the `stream` trigger; `outbox` delivers to their targets. `history`: events kept of each
    group. `publish` gets each event on the storage's thread, in the order of the commits.
    """

    def __init__(
        self,
        pairs: SqliteKeyValue,
        filters: Bindings[Filter] | Sequence[Filter],
        history: int,
        outbox: Outbox,
        publish: Callable[[LoggedEvent], None],
    ) -> None:
        self._pairs = pairs
        self._filters = filters
        self._history = history
        self._outbox = outbox
        self._publish = publish
        self._since_trim: Counter[str] = Counter()
        pairs.watch(lambda change: self._on_commit(change.journal, change.key))

    def entries(
        self, group: Group, item: str | None, event: dict[str, Any], trace: Trace | None = None
    ) -> list[tuple[str, bytes]]:
        """Return the journal entries of an event: one of the group's log, one of the outbox if a trigger wants it."""
        message = envelope(group, item, event, int(time.time() * 1000))
        targets = [filter.target for filter in self._filters if filter.wants(group, item)]
        entries = [(group.topic, encode(message))]
        if targets:
            entries.append((TOPIC, outbox_entry(group.topic, targets, message, trace)))
        return entries

    async def write(self, group: Group, item: str | None, event: dict[str, Any]) -> None:
        """Write an event that changes no item of the storage."""
        entries = self.entries(group, item, event, current_trace())
        await self._pairs.journal.append(entries, lambda committed: self._on_commit(committed, item))

    async def since(self, group: Group, offset: int) -> list[LoggedEvent] | None:
        """Return the events after `offset`; None when some of them were trimmed, or the offset is not of this log."""
        latest = await self._pairs.journal.last()
        entries = await self._pairs.journal.read(group.topic, 0, self._history + TRIM_INTERVAL)
        is_trimmed = len(entries) >= self._history and entries[0].position > offset
        if offset > latest or is_trimmed:
            return None
        return [
            LoggedEvent(group, decode(entry.body)["id"], entry.position, entry.body)
            for entry in entries
            if entry.position > offset
        ]

    async def latest(self) -> int:
        """Return an offset that covers everything committed so far."""
        return await self._pairs.journal.last()

    def _on_commit(self, entries: Sequence[JournalEntry], item: str | None) -> None:
        """Publish committed entries; runs on the storage's thread."""
        for entry in entries:
            if entry.topic == TOPIC:
                self._outbox.offer([entry])
                continue
            group = group_from(entry.topic.removeprefix("log"))
            self._publish(LoggedEvent(group, item, entry.position, entry.body))
            self._since_trim[entry.topic] += 1
            if self._since_trim[entry.topic] >= TRIM_INTERVAL:
                del self._since_trim[entry.topic]
                self._pairs.journal.trim(entry.topic, self._history)
