"""How much the journal keeps of logs, topics that nobody empties: bounds of count, bytes and age, across restarts.

A position says nothing about what was dropped after it, so the highest dropped position is a record: a reader who comes
with an older one is told that there is a gap.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import NamedTuple

from stdlib_workers.storage.sqlite_records import put_record, read_records

# Counts of topics in memory; a topic beyond that is counted again.
MAX_COUNTED = 100_000
# Entries looked at in one step of dropping the oldest.
STEP = 64
# Seconds between two looks for entries that are too old.
AGE_INTERVAL = 1.0
_KIND, _DROPPED, _PER_TOPIC = "log", "dropped", "per_topic"

_DROP_FIRST = (
    "DELETE FROM journal WHERE position IN (SELECT position FROM journal WHERE topic = ? ORDER BY position LIMIT ?) "
    "RETURNING length(body)"
)
# `+topic` keeps SQLite from sorting the whole index: the oldest are at the beginning of the table itself.
_OLDEST = (
    "SELECT position, topic, length(body), at FROM journal "
    "WHERE position > ? AND +topic >= ? AND +topic < ? ORDER BY position LIMIT ?"
)


class Bounds(NamedTuple):
    """What is kept of the topics that begin with `prefix`: entries of one topic; bytes and seconds of all together."""

    prefix: str
    per_topic: int
    max_bytes: int
    max_age: float


class LogRetention:
    """Drops what is over the bounds at the end of each transaction that has added to a log.

    Runs on the storage thread. What a transaction has changed counts only after its commit.
    """

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.time) -> None:
        self._bounds = bounds
        self._end = f"{bounds.prefix[:-1]}{chr(ord(bounds.prefix[-1]) + 1)}"
        self._clock = clock
        self._next_look = 0.0
        self._counts: dict[str, int] = {}
        self._bytes = 0
        self._dropped = 0
        self._first = 0  # no log entry is at this position or before it
        self.begin()

    def load(self, connection: sqlite3.Connection) -> None:
        """Take over what an earlier process has left."""
        records = read_records(connection, _KIND)
        self._dropped = int(records.get(_DROPPED, b"0"))
        before = int(records.get(_PER_TOPIC, b"0"))
        if before != self._bounds.per_topic:
            put_record(connection, _KIND, _PER_TOPIC, b"%d" % self._bounds.per_topic)
        span = (self._bounds.prefix, self._end)
        sums = "coalesce(sum(length(body)), 0), coalesce(max(position), 0)"
        row = connection.execute(f"SELECT {sums} FROM journal WHERE topic >= ? AND topic < ?", span).fetchone()
        self._bytes, last = row
        if before < self._bounds.per_topic:
            # A topic that is full by the old bound is not by the new one, and still lacks what was dropped.
            self._dropped = max(self._dropped, last)
            put_record(connection, _KIND, _DROPPED, b"%d" % self._dropped)
        full = "SELECT topic, count(*) FROM journal WHERE topic >= ? AND topic < ? GROUP BY topic HAVING count(*) > ?"
        for topic, count in connection.execute(full, (*span, self._bounds.per_topic)).fetchall():
            self._bytes -= _sum(connection.execute(_DROP_FIRST, (topic, count - self._bounds.per_topic)))

    def owns(self, topic: str) -> bool:
        """Tell whether a topic is a log."""
        return topic.startswith(self._bounds.prefix)

    def begin(self) -> None:
        """Forget what a transaction has done that did not commit."""
        self._added: dict[str, int] = {}
        self._new_counts: dict[str, int | None] = {}
        self._new_bytes = 0
        self._new_dropped = 0
        self._new_first = 0

    def add(self, topic: str, size: int) -> None:
        """Note that the transaction has appended an entry."""
        self._added[topic] = self._added.get(topic, 0) + 1
        self._new_bytes += size

    def drop(self, connection: sqlite3.Connection, topic: str) -> None:
        """Drop a whole topic."""
        statement = "DELETE FROM journal WHERE topic = ? RETURNING position, length(body)"
        for position, size in connection.execute(statement, (topic,)).fetchall():
            self._new_dropped = max(self._new_dropped, position)
            self._new_bytes -= size
        self._added.pop(topic, None)
        self._new_counts[topic] = 0

    def finish(self, connection: sqlite3.Connection) -> None:
        """Drop what is over the bounds."""
        if not self._added and not self._new_dropped:
            return
        for topic, added in self._added.items():
            count = self._new_counts[topic] = self._count(connection, topic, added)
            if count > self._bounds.per_topic:
                excess = count - self._bounds.per_topic
                self._new_bytes -= _sum(connection.execute(_DROP_FIRST, (topic, excess)))
                self._new_counts[topic] = self._bounds.per_topic
        self._added = {}
        now = self._clock()
        if now >= self._next_look or self._bytes + self._new_bytes > self._bounds.max_bytes:
            self._next_look = now + AGE_INTERVAL
            self._drop_oldest(connection, int((now - self._bounds.max_age) * 1000))
        if self._new_dropped > self._dropped:
            put_record(connection, _KIND, _DROPPED, b"%d" % self._new_dropped)

    def _count(self, connection: sqlite3.Connection, topic: str, added: int) -> int:
        known = self._new_counts.get(topic, self._counts.get(topic))
        if known is not None:
            return known + added
        counted: int = connection.execute("SELECT count(*) FROM journal WHERE topic = ?", (topic,)).fetchone()[0]
        return counted

    def _drop_oldest(self, connection: sqlite3.Connection, before_ms: int) -> None:
        after = max(self._first, self._new_first)
        while True:
            rows = connection.execute(_OLDEST, (after, self._bounds.prefix, self._end, STEP)).fetchall()
            for position, topic, size, at in rows:
                if at >= before_ms and self._bytes + self._new_bytes <= self._bounds.max_bytes:
                    self._new_first = after
                    return
                connection.execute("DELETE FROM journal WHERE position = ?", (position,))
                self._new_counts[topic] = None
                self._new_bytes -= size
                self._new_dropped = after = position
            if len(rows) < STEP:
                self._new_first = after
                return

    def committed(self) -> None:
        """Take over what the transaction has changed."""
        for topic, count in self._new_counts.items():
            if count is None:
                self._counts.pop(topic, None)
            else:
                self._counts[topic] = count
        if len(self._counts) > MAX_COUNTED:
            self._counts.clear()
        self._bytes += self._new_bytes
        self._dropped = max(self._dropped, self._new_dropped)
        self._first = max(self._first, self._new_first)
        self.begin()

    def is_whole(self, connection: sqlite3.Connection, topic: str, position: int) -> bool:
        """Tell whether everything that the topic ever had after `position` is still there."""
        statement = "SELECT 1 FROM journal WHERE topic = ? AND position <= ? LIMIT 1"
        if connection.execute(statement, (topic, position)).fetchone():
            return True  # the oldest go first: an older entry that is there vouches for all after it
        if position < max(self._dropped, self._new_dropped):
            return False
        statement = "SELECT count(*) FROM (SELECT 1 FROM journal WHERE topic = ? LIMIT ?)"
        count: int = connection.execute(statement, (topic, self._bounds.per_topic)).fetchone()[0]
        return count < self._bounds.per_topic


def _sum(rows: sqlite3.Cursor) -> int:
    return sum(row[0] for row in rows.fetchall())
