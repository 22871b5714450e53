"""The journal: entries of one topic each in the order of their commits, with a checksum each.

It is in the file of its keys (`sqlite_keyvalue.py`), and a change of a key may append to it in the same transaction: a
transactional outbox, or a log of events. An outbox is emptied by its reader; a log is bounded by `log_retention.py`.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stdlib_workers.storage.errors import CORRUPT, StorageFailure
from stdlib_workers.storage.log_retention import Bounds, LogRetention
from stdlib_workers.storage.pending import Pending
from stdlib_workers.storage.store import Store

# `at`, in milliseconds since 1970, only decides how long an entry of a log is kept: the checksum does not cover it.
JOURNAL_TABLES = """
        CREATE TABLE journal (
            position INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL,
            body BLOB NOT NULL, checksum INTEGER NOT NULL, at INTEGER NOT NULL DEFAULT 0
        ) STRICT;
        CREATE INDEX journal_of_topic ON journal (topic, position);
"""
JOURNAL_AGES = """
        ALTER TABLE journal ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
        UPDATE journal SET at = CAST(strftime('%s', 'now') AS INTEGER) * 1000;
"""

_APPEND = "INSERT INTO journal (topic, body, checksum, at) VALUES (?, ?, ?, ?)"
_READ = "SELECT position, topic, body, checksum FROM journal WHERE topic = ? AND position > ? ORDER BY position LIMIT ?"
_SIZE = "SELECT count(*), coalesce(sum(length(body)), 0) FROM journal WHERE topic = ?"
_DROP_FIRST = (
    "DELETE FROM journal WHERE position IN (SELECT position FROM journal WHERE topic = ? ORDER BY position LIMIT ?)"
)


class JournalEntry(NamedTuple):
    """One line of the journal. Positions grow and are never given out twice."""

    position: int
    topic: str
    body: bytes


class SqliteJournal:
    """The journal of a `SqliteKeyValue`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.retention: LogRetention | None = None

    @property
    def epoch(self) -> int:
        """The file's epoch: positions mean nothing in another one."""
        return self._store.epoch

    def bound_logs(self, bounds: Bounds) -> None:
        """Keep the topics that begin with the prefix within bounds, from now on. Blocks until that is so."""
        retention = LogRetention(bounds)
        self._store.run(retention.load).result()
        self.retention = retention

    def append(
        self, lines: Sequence[tuple[str, bytes]], then: Callable[[list[JournalEntry]], None] | None = None
    ) -> Pending[list[JournalEntry]]:
        """Add entries, (topic, body) each, in one step. `then` gets them first, in order with what watchers get."""
        return self._store.run(lambda connection: [self.add(connection, *line) for line in lines], then=then)

    def add(self, connection: sqlite3.Connection, topic: str, body: bytes) -> JournalEntry:
        """Add one line inside a transaction."""
        row = (topic, body, checksum_of(topic, body), int(time.time() * 1000))
        position = connection.execute(_APPEND, row).lastrowid
        assert position is not None
        if self.retention is not None and self.retention.owns(topic):
            self.retention.add(topic, len(body))
        return JournalEntry(position, topic, body)

    def read(self, topic: str, after: int, limit: int) -> Pending[list[JournalEntry]]:
        """Return up to `limit` entries of a topic with a position over `after`."""
        return self._store.run(lambda connection: _read(connection, topic, after, limit))

    def read_whole(self, topic: str, after: int, limit: int) -> Pending[list[JournalEntry] | None]:
        """Return all entries of a log after a position; None when they are more than `limit`, or some were dropped."""

        def command(connection: sqlite3.Connection) -> list[JournalEntry] | None:
            assert self.retention is not None, "only logs lose entries"
            if not self.retention.is_whole(connection, topic, after):
                return None
            entries = _read(connection, topic, after, limit + 1)
            return entries if len(entries) <= limit else None

        return self._store.run(command)

    def last(self) -> Pending[int]:
        """Return the position of the newest entry ever appended, 0 for none."""

        def command(connection: sqlite3.Connection) -> int:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()
            return row[0] if row else 0

        return self._store.run(command)

    def remove(self, positions: Sequence[int]) -> Pending[None]:
        """Forget entries, for good and only those."""
        return self.replace(positions, ())

    def replace(self, positions: Sequence[int], lines: Sequence[tuple[str, bytes]]) -> Pending[None]:
        """Forget entries and add others in their place, in one step."""
        rows = [(position,) for position in positions]

        def command(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM journal WHERE position = ?", rows)
            for line in lines:
                self.add(connection, *line)

        return self._store.run(command)

    def topics(self, prefix: str) -> Pending[list[str]]:
        """Return the topics that begin with `prefix` and have an entry."""
        statement = "SELECT DISTINCT topic FROM journal WHERE topic >= ? AND topic < ?"
        span = (prefix, prefix + "\U0010ffff")
        return self._store.run(lambda connection: [row[0] for row in connection.execute(statement, span)])

    def size(self, topic: str) -> Pending[tuple[int, int]]:
        """Return how many entries a topic has, and their bytes."""

        def command(connection: sqlite3.Connection) -> tuple[int, int]:
            entries, size = connection.execute(_SIZE, (topic,)).fetchone()
            return entries, size

        return self._store.run(command)

    def drop_first(self, topic: str, count: int) -> Pending[None]:
        """Forget the oldest entries of a topic."""

        def command(connection: sqlite3.Connection) -> None:
            connection.execute(_DROP_FIRST, (topic, count))

        return self._store.run(command)


def _read(connection: sqlite3.Connection, topic: str, after: int, limit: int) -> list[JournalEntry]:
    entries = []
    for position, row_topic, body, checksum in connection.execute(_READ, (topic, after, limit)):
        if checksum_of(row_topic, body) != checksum:
            raise StorageFailure(CORRUPT, f"the entry of {topic} at position {position} is damaged on the disk")
        entries.append(JournalEntry(position, row_topic, body))
    return entries


def checksum_of(head: str, body: bytes) -> int:
    """Return the checksum of a row; `head` says where the row belongs."""
    return zlib.crc32(body, zlib.crc32(head.encode()))
