"""The events of streams: they are committed to the journal with their cause, then go to triggers and to sockets.

Each group keeps its last events, so that a subscriber can resume where it stopped, until its last item is deleted. All
groups together are bounded in bytes and age, so that groups which are used once do not stay for ever.

An offset, as subscribers know it, is a position in the journal with the journal's epoch in its upper bits: one from
before a restart in memory, or from before a restore, is not taken for one after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any, NamedTuple

from stdlib_workers.events import TOPIC, Bindings, Outbox, Trace, current_trace
from stdlib_workers.events import envelope as outbox_entry
from stdlib_workers.storage import Bounds, JournalEntry, SqliteKeyValue
from stdlib_workers.stream.events import Filter, Group, envelope, group_from
from stdlib_workers.values import decode, encode

# Bytes and seconds that all logs together keep: eight times what one subscriber can be sent at once.
MAX_BYTES = 32 * 1024 * 1024
MAX_AGE = 24 * 3600.0
# What one subscriber is sent at once, below the bounds of its queue; one who has missed more gets the state instead.
MAX_MISSED = 900
MAX_MISSED_BYTES = 4 * 1024 * 1024
# An offset has 53 bits, as many as a number of JavaScript: 20 of the epoch, 33 of the position.
POSITION_BITS = 33


class LoggedEvent(NamedTuple):
    """One event of a group as it is in the journal; `body`: the envelope as JSON, `position`: its offset."""

    group: Group
    item: str | None
    position: int
    body: bytes


class EventLog:
    """Writes events, and publishes them after the commit.

    `filters`: the bindings of the `stream` trigger; `outbox` delivers to their targets. `history`: events kept of each
    group. `publish` gets each event on the storage's thread, in the order of the commits. `clock` gives the seconds
    since the epoch that events carry.
    """

    def __init__(
        self,
        pairs: SqliteKeyValue,
        filters: Bindings[Filter] | Sequence[Filter],
        history: int,
        outbox: Outbox,
        publish: Callable[[LoggedEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self._pairs = pairs
        self._filters = filters
        self._outbox = outbox
        self._publish = publish
        self._clock = clock
        self._epoch = pairs.journal.epoch << POSITION_BITS
        pairs.journal.bound_logs(Bounds("log", history, MAX_BYTES, MAX_AGE))
        pairs.on_emptied = self._forget
        pairs.watch(lambda change: self._on_commit(change.journal, change.key))

    def entries(
        self, group: Group, item: str | None, event: dict[str, Any], trace: Trace | None = None
    ) -> list[tuple[str, bytes]]:
        """Return the journal entries of an event: one of the group's log, one of the outbox if a trigger wants it."""
        message = envelope(group, item, event, int(self._clock() * 1000))
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
        """Return the events after `offset`; None when some of them are gone or too many, or it is not of this log."""
        after = offset - self._epoch
        if not 0 <= after <= await self._pairs.journal.last():
            return None
        entries = await self._pairs.journal.read_whole(group.topic, after, MAX_MISSED)
        if entries is None or sum(len(entry.body) for entry in entries) > MAX_MISSED_BYTES:
            return None
        return [self._logged(group, decode(entry.body)["id"], entry) for entry in entries]

    async def latest(self) -> int:
        """Return an offset that covers everything committed so far."""
        return self._epoch + await self._pairs.journal.last()

    def _logged(self, group: Group, item: str | None, entry: JournalEntry) -> LoggedEvent:
        return LoggedEvent(group, item, self._epoch + entry.position, entry.body)

    def _forget(self, connection: Connection, bucket: str) -> None:
        """Drop the log of a group whose last item is gone."""
        retention = self._pairs.journal.retention
        assert retention is not None
        retention.drop(connection, group_from(bucket).topic)

    def _on_commit(self, entries: Sequence[JournalEntry], item: str | None) -> None:
        """Publish committed entries; runs on the storage's thread."""
        for entry in entries:
            if entry.topic == TOPIC:
                self._outbox.offer([entry])
            else:
                self._publish(self._logged(group_from(entry.topic.removeprefix("log")), item, entry))
