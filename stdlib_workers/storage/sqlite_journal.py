"""The journal: entries of one topic each in the order of their commits, with a checksum each.

It is in the file of its keys (`sqlite_keyvalue.py`), and a change of a key may append to it in the same transaction: a
transactional outbox, or a log of events.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stdlib_workers.storage.errors import CORRUPT, StorageFailure
from stdlib_workers.storage.pending import Pending
from stdlib_workers.storage.store import Store

JOURNAL_TABLES = """
        CREATE TABLE journal (
            position INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL,
            body BLOB NOT NULL, checksum INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX journal_of_topic ON journal (topic, position);
"""

_APPEND = "INSERT INTO journal (topic, body, checksum) VALUES (?, ?, ?)"
_READ = "SELECT position, topic, body, checksum FROM journal WHERE topic = ? AND position > ? ORDER BY position LIMIT ?"
_TRIM = (
    "DELETE FROM journal WHERE topic = ?1 AND position <= "
    "(SELECT position FROM journal WHERE topic = ?1 ORDER BY position DESC LIMIT 1 OFFSET ?2)"
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

    def append(
        self, lines: Sequence[tuple[str, bytes]], then: Callable[[list[JournalEntry]], None] | None = None
    ) -> Pending[list[JournalEntry]]:
        """Add entries, (topic, body) each, in one step. `then` gets them first, in order with what watchers get."""
        return self._store.run(lambda connection: [append(connection, topic, body) for topic, body in lines], then=then)

    def read(self, topic: str, after: int, limit: int) -> Pending[list[JournalEntry]]:
        """Return up to `limit` entries of a topic with a position over `after`."""

        def command(connection: sqlite3.Connection) -> list[JournalEntry]:
            entries = []
            for position, row_topic, body, checksum in connection.execute(_READ, (topic, after, limit)):
                if checksum_of(row_topic, body) != checksum:
                    raise StorageFailure(CORRUPT, f"the journal is damaged at position {position}")
                entries.append(JournalEntry(position, row_topic, body))
            return entries

        return self._store.run(command)

    def last(self) -> Pending[int]:
        """Return the position of the newest entry ever appended, 0 for none."""

        def command(connection: sqlite3.Connection) -> int:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()
            return row[0] if row else 0

        return self._store.run(command)

    def remove(self, positions: Sequence[int]) -> Pending[None]:
        """Forget entries, for good and only those."""
        rows = [(position,) for position in positions]

        def command(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM journal WHERE position = ?", rows)

        return self._store.run(command)

    def trim(self, topic: str, keep: int) -> Pending[None]:
        """Forget all but the last `keep` entries of a topic."""

        def command(connection: sqlite3.Connection) -> None:
            connection.execute(_TRIM, (topic, keep))

        return self._store.run(command)


def append(connection: sqlite3.Connection, topic: str, body: bytes) -> JournalEntry:
    """Add one line inside a transaction."""
    position = connection.execute(_APPEND, (topic, body, checksum_of(topic, body))).lastrowid
    assert position is not None
    return JournalEntry(position, topic, body)


def checksum_of(head: str, body: bytes) -> int:
    """Return the checksum of a row; `head` says where the row belongs."""
    return zlib.crc32(body, zlib.crc32(head.encode()))
