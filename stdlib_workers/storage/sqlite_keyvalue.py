"""A store of keys: a table of entries with a checksum in every row, and the journal beside it.

Values are JSON as bytes. A bucket holds keys in the order of their first write. Nothing in the methods is SQLite's: a
NATS bucket and stream fit them too, with `update` as a loop of compare-and-set.

A flipped bit in a row is found when the row is read and becomes `storage_corrupt`; it is never served.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from stdlib_workers.storage.checksums import check_row, row_checksum
from stdlib_workers.storage.database import Schema
from stdlib_workers.storage.pending import Pending
from stdlib_workers.storage.sqlite_journal import JOURNAL_AGES, JOURNAL_TABLES, JournalEntry, SqliteJournal
from stdlib_workers.storage.sqlite_records import RECORD_TABLE, SqliteRecords
from stdlib_workers.storage.store import Store
from stdlib_workers.storage.write_buffer import Cache, Entry, WriteBuffer, entry_from
from stdlib_workers.values import check_change

T = TypeVar("T")

# Versions reserved at a time: a restart skips up to as many.
RESERVE = 1 << 20

# `entry.id` is the order of first writes. `bucket.entries` keeps counting and listing buckets cheap.
KEY_VALUE_SCHEMA = Schema(
    application_id=0x69696B76,  # "iikv"
    create=f"""
        CREATE TABLE entry (
            id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL,
            value BLOB NOT NULL, version INTEGER NOT NULL, checksum INTEGER NOT NULL,
            UNIQUE (bucket, key)
        ) STRICT;
        CREATE INDEX entry_of_bucket ON entry (bucket, id);
        CREATE TABLE bucket (
            name TEXT PRIMARY KEY, entries INTEGER NOT NULL, checksum INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        {JOURNAL_TABLES}
        {RECORD_TABLE}
        CREATE TABLE version (reserved INTEGER NOT NULL, checksum INTEGER NOT NULL) STRICT;
        INSERT INTO version VALUES (0, row_checksum(0));
    """,
    upgrades=(
        f"""
        DROP TABLE bucket;
        CREATE TABLE bucket (
            name TEXT PRIMARY KEY, entries INTEGER NOT NULL, checksum INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        INSERT INTO bucket SELECT bucket, count(*), row_checksum(bucket, count(*)) FROM entry GROUP BY bucket;
        {JOURNAL_AGES}
        {RECORD_TABLE}
        ALTER TABLE version ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
        UPDATE version SET checksum = row_checksum(reserved);
        """,
    ),
)

_LIST = "SELECT id, key, value, version, checksum FROM entry WHERE bucket = ? AND id > ? ORDER BY id LIMIT ?"


class Change(NamedTuple):
    """One write: the entry before and after it (None for none), and the journal entries that it has appended."""

    bucket: str
    key: str
    old: Entry | None
    new: Entry | None
    journal: Sequence[JournalEntry] = ()


class Row(NamedTuple):
    """One key in a listing. The next page starts after `position`."""

    position: int
    key: str
    entry: Entry


# Decides a write: the current entry -> the new value, None to delete. Raises to leave everything as it is.
Decide = Callable[[Entry | None], bytes | None]
# What a change appends to the journal: (topic, body) pairs.
Announce = Callable[[Change], Sequence[tuple[str, bytes]]]


class SqliteKeyValue:
    """Keys in buckets and their journal, in one `Store` that was opened with KEY_VALUE_SCHEMA.

    Every write is durable when its `Pending` has its result.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: list[Callable[[Change], None]] = []
        self._recent = Cache()
        self.journal = SqliteJournal(store)
        self.records = SqliteRecords(store)
        self._buffer = WriteBuffer(self._recent, self.journal)
        store.attach(self._buffer)
        self._reserved = store.run(_reserve_versions).result()
        self._version = self._reserved - RESERVE
        # Called inside the transaction that removes the last key of a bucket.
        self.on_emptied: Callable[[sqlite3.Connection, str], None] = lambda *_: None

    def recent(self, bucket: str, key: str) -> Entry | None:
        """Return a durable entry that is in memory; None only means to call `get`. Safe on any thread."""
        return self._recent.find(bucket, key) if self._store.is_serving else None

    def get(self, bucket: str, key: str, then: Callable[[Entry | None], None] | None = None) -> Pending[Entry | None]:
        """Return an entry. `then` gets it first, in order with what watchers get."""
        return self._store.run(lambda connection: self._buffer.find(connection, bucket, key), then=then)

    def put(self, bucket: str, key: str, value: bytes) -> Pending[Change]:
        """Write a value, whether the key exists or not."""
        return self.update(bucket, key, lambda _: value)

    def update(self, bucket: str, key: str, decide: Decide, announce: Announce | None = None) -> Pending[Change]:
        """Write what `decide` makes of the entry, and append what `announce` makes of the change, in one step."""
        write = (bucket, key, decide)
        return self._store.run(lambda connection: self._change(connection, write, announce), then=self._notify)

    def update_all(
        self, writes: Sequence[tuple[str, str, Decide]], announce: Announce | None = None
    ) -> Pending[list[Change]]:
        """As `update` for several (bucket, key, decide) in one step: decided in order; if one raises, none is written.

        A key that is written twice is decided the second time with the result of the first.
        """

        def command(connection: sqlite3.Connection) -> list[Change]:
            with self._buffer.rollback_on_error():
                return [self._change(connection, write, announce) for write in writes]

        def notify(changes: list[Change]) -> None:
            for change in changes:
                self._notify(change)

        return self._store.run(command, then=notify)

    def _change(
        self, connection: sqlite3.Connection, write: tuple[str, str, Decide], announce: Announce | None
    ) -> Change:
        bucket, key, decide = write
        old = self._buffer.find(connection, bucket, key)
        value = decide(old)
        check_change(f"{key} in {bucket}", old and old.value, value)
        new = None if value is None else Entry(value, self._next_version())
        change = Change(bucket, key, old, new)
        lines = announce(change) if announce is not None else ()
        if lines:
            change = change._replace(journal=[self.journal.add(connection, *line) for line in lines])
        # Last, because it cannot fail: what is in the buffer would not be undone with its command.
        if new is not None:
            self._buffer.write(bucket, key, new, is_new=old is None)
        elif old is not None and self._buffer.delete(connection, bucket, key) == 0:
            self.on_emptied(connection, bucket)
        return change

    def _notify(self, change: Change) -> None:
        for watcher in self._watchers:
            watcher(change)

    def _next_version(self) -> int:
        # Counted in memory, up to the number that is reserved on the disk. A restart goes on above that number: so no
        # version is ever given out twice, and no write has to update a counter.
        self._version += 1
        if self._version > self._reserved - RESERVE // 2:
            self._store.run(_reserve_versions, then=self._set_reserved)
        return self._version

    def _set_reserved(self, reserved: int) -> None:
        self._reserved = reserved

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> Pending[T]:
        def command(connection: sqlite3.Connection) -> T:
            self._buffer.flush(connection)
            return query(connection)

        return self._store.run(command)

    def count(self, bucket: str) -> Pending[int]:
        """Return how many keys a bucket has."""
        return self._read(lambda connection: self._buffer.count(connection, bucket))

    def buckets(self) -> Pending[list[str]]:
        """Return the buckets that hold a key, sorted."""

        def query(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute("SELECT name, entries, checksum FROM bucket ORDER BY name").fetchall()
            for name, entries, checksum in rows:
                check_row(f"the count of {name}", checksum, name, entries)
            return [row[0] for row in rows]

        return self._read(query)

    def watch(self, callback: Callable[[Change], None]) -> None:
        """Call `callback` after every change from now on, on the storage's thread, in the order of the commits."""
        self._watchers.append(callback)

    def list(self, bucket: str, after: int = 0, limit: int | None = None) -> Pending[list[Row]]:
        """Return the entries of a bucket in the order of their first write, `limit` of them after a position."""
        parameters = (bucket, after, -1 if limit is None else limit)
        return self._read(
            lambda connection: [
                Row(row[0], row[1], entry_from(bucket, row[1], row[2:]))
                for row in connection.execute(_LIST, parameters)
            ]
        )


def _reserve_versions(connection: sqlite3.Connection) -> int:
    reserved, checksum = connection.execute("SELECT reserved, checksum FROM version").fetchone()
    check_row("the counter of versions", checksum, reserved)
    reserved += RESERVE
    connection.execute("UPDATE version SET reserved = ?, checksum = ?", (reserved, row_checksum(reserved)))
    return int(reserved)
