"""The seam of `keyvalue.py` over SQLite: three tables, a checksum in every row, one statement an answer.

A flipped bit in a row is found when the row is read and becomes `storage_corrupt`; it is never served.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Sequence

from iii import InvocationError
from stdlib_workers.storage.database import Schema
from stdlib_workers.storage.failures import CORRUPT
from stdlib_workers.storage.keyvalue import Announce, Appended, Change, Decide, Entry, JournalEntry, Row, Watch
from stdlib_workers.storage.pending import Pending
from stdlib_workers.storage.store import Store

CONFLICT = "CONFLICT"
# Versions reserved at a time: a restart skips up to as many.
RESERVE = 1 << 20

# `entry.id` is the order of first writes. `bucket.entries` keeps counting and listing buckets cheap.
KEY_VALUE_SCHEMA = Schema(
    application_id=0x69696B76,  # "iikv"
    create="""
        CREATE TABLE entry (
            id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL,
            value BLOB NOT NULL, version INTEGER NOT NULL, checksum INTEGER NOT NULL,
            UNIQUE (bucket, key)
        ) STRICT;
        CREATE INDEX entry_of_bucket ON entry (bucket, id);
        CREATE TABLE bucket (name TEXT PRIMARY KEY, entries INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        CREATE TABLE journal (
            position INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL,
            body BLOB NOT NULL, checksum INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX journal_of_topic ON journal (topic, position);
        CREATE TABLE version (reserved INTEGER NOT NULL) STRICT;
        INSERT INTO version VALUES (0);
    """,
)

_FIND = "SELECT id, value, version, checksum FROM entry WHERE bucket = ? AND key = ?"
_INSERT = "INSERT INTO entry (bucket, key, value, version, checksum) VALUES (?, ?, ?, ?, ?)"
_REPLACE = "UPDATE entry SET value = ?, version = ?, checksum = ? WHERE id = ?"
_COUNT_UP = "INSERT INTO bucket VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET entries = entries + 1"
_COUNT_DOWN = "UPDATE bucket SET entries = entries - 1 WHERE name = ?"
_LIST = "SELECT id, key, value, version, checksum FROM entry WHERE bucket = ? AND id > ? ORDER BY id LIMIT ?"
_APPEND = "INSERT INTO journal (topic, body, checksum) VALUES (?, ?, ?)"
_READ = "SELECT position, topic, body, checksum FROM journal WHERE topic = ? AND position > ? ORDER BY position LIMIT ?"
_TRIM = (
    "DELETE FROM journal WHERE topic = ?1 AND position <= "
    "(SELECT position FROM journal WHERE topic = ?1 ORDER BY position DESC LIMIT 1 OFFSET ?2)"
)


class SqliteJournal:
    """The journal of a `SqliteKeyValue`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def append(self, lines: Sequence[tuple[str, bytes]], then: Appended | None = None) -> Pending[list[JournalEntry]]:
        """Add entries, (topic, body) each, in one step. `then` gets them first, in order with what watchers get."""
        return self._store.run(
            lambda connection: [_append(connection, topic, body) for topic, body in lines], then=then
        )

    def read(self, topic: str, after: int, limit: int) -> Pending[list[JournalEntry]]:
        """Return up to `limit` entries of a topic with a position over `after`."""
        return self._store.run(
            lambda connection: [_journal_entry(row) for row in connection.execute(_READ, (topic, after, limit))]
        )

    def last(self) -> Pending[int]:
        """Return the position of the newest entry ever appended, 0 for none."""

        def command(connection: sqlite3.Connection) -> int:
            found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()
            return found[0] if found else 0

        return self._store.run(command)

    def remove(self, positions: Sequence[int]) -> Pending[None]:
        """Forget entries."""
        rows = [(position,) for position in positions]

        def command(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM journal WHERE position = ?", rows)

        return self._store.run(command)

    def trim(self, topic: str, keep: int) -> Pending[None]:
        """Forget all but the last `keep` entries of a topic."""

        def command(connection: sqlite3.Connection) -> None:
            connection.execute(_TRIM, (topic, keep))

        return self._store.run(command)


class SqliteKeyValue:
    """Keys and journal in one `Store` that was opened with KEY_VALUE_SCHEMA."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: list[Watch] = []
        self._version = self._reserved = 0
        store.run(_reserve, then=self._start_versions).result()
        self._journal = SqliteJournal(store)

    @property
    def journal(self) -> SqliteJournal:
        """The journal in the same file."""
        return self._journal

    def get(self, bucket: str, key: str, then: Callable[[Entry | None], None] | None = None) -> Pending[Entry | None]:
        """Return an entry. `then` gets it first, in order with what watchers get."""
        return self._store.run(lambda connection: _find(connection, bucket, key)[1], then=then)

    def put(self, bucket: str, key: str, value: bytes) -> Pending[Change]:
        """Write a value whatever stands there."""
        return self.update(bucket, key, lambda _: value)

    def compare_and_set(self, bucket: str, key: str, version: int, value: bytes) -> Pending[Change]:
        """Write only over `version`, 0 for a key that must not exist. InvocationError `CONFLICT` otherwise."""

        def decide(entry: Entry | None) -> bytes:
            check_version(entry, version)
            return value

        return self.update(bucket, key, decide)

    def delete(self, bucket: str, key: str) -> Pending[Change]:
        """Remove a key; one that is not there is no error."""
        return self.update(bucket, key, lambda _: None)

    def update(self, bucket: str, key: str, decide: Decide, announce: Announce | None = None) -> Pending[Change]:
        """Write what `decide` makes of the entry, and append what `announce` makes of the change, in one step."""
        write = (bucket, key, decide)
        return self._store.run(lambda connection: self._change(connection, write, announce), then=self._tell)

    def update_all(
        self, writes: Sequence[tuple[str, str, Decide]], announce: Announce | None = None
    ) -> Pending[list[Change]]:
        """As `update` for several (bucket, key, decide) in one step: decided in order; if one raises, none is made."""

        def command(connection: sqlite3.Connection) -> list[Change]:
            return [self._change(connection, write, announce) for write in writes]

        def tell(changes: list[Change]) -> None:
            for change in changes:
                self._tell(change)

        return self._store.run(command, then=tell)

    def _change(
        self, connection: sqlite3.Connection, write: tuple[str, str, Decide], announce: Announce | None
    ) -> Change:
        bucket, key, decide = write
        row, old = _find(connection, bucket, key)
        change = Change(bucket, key, old, self._write(connection, (bucket, key, row), decide(old)))
        if announce is None:
            return change
        return change._replace(journal=[_append(connection, topic, body) for topic, body in announce(change)])

    def _write(
        self, connection: sqlite3.Connection, place: tuple[str, str, int | None], value: bytes | None
    ) -> Entry | None:
        bucket, key, row = place
        if value is None:
            if row is not None:
                connection.execute("DELETE FROM entry WHERE id = ?", (row,))
                connection.execute(_COUNT_DOWN, (bucket,))
            return None
        version = self._next_version()
        checksum = _checksum(f"{bucket}\0{key}\0{version}", value)
        if row is None:
            connection.execute(_INSERT, (bucket, key, value, version, checksum))
            connection.execute(_COUNT_UP, (bucket,))
        else:
            connection.execute(_REPLACE, (value, version, checksum, row))
        return Entry(value, version)

    def _tell(self, change: Change) -> None:
        for watcher in self._watchers:
            watcher(change)

    # Versions are counted in memory, below a mark on the disk: a restart goes on above the mark, so that no version is
    # ever given out twice, and no write has to update a counter.

    def _next_version(self) -> int:
        self._version += 1
        if self._version > self._reserved - RESERVE // 2:
            self._store.run(_reserve, then=self._extend_versions)
        return self._version

    def _start_versions(self, mark: int) -> None:
        self._version, self._reserved = mark - RESERVE, mark

    def _extend_versions(self, mark: int) -> None:
        self._reserved = mark

    def count(self, bucket: str) -> Pending[int]:
        """Return how many keys a bucket has."""

        def command(connection: sqlite3.Connection) -> int:
            found = connection.execute("SELECT entries FROM bucket WHERE name = ?", (bucket,)).fetchone()
            return found[0] if found else 0

        return self._store.run(command)

    def buckets(self) -> Pending[list[str]]:
        """Return the buckets that hold a key, sorted."""
        query = "SELECT name FROM bucket WHERE entries > 0 ORDER BY name"
        return self._store.run(lambda connection: [row[0] for row in connection.execute(query)])

    def watch(self, callback: Watch) -> None:
        """Call `callback` after every change from now on."""
        self._watchers.append(callback)

    def list(self, bucket: str, after: int = 0, limit: int | None = None) -> Pending[list[Row]]:
        """Return the entries of a bucket in the order of their first write, `limit` of them after a position."""

        def command(connection: sqlite3.Connection) -> list[Row]:
            found = connection.execute(_LIST, (bucket, after, -1 if limit is None else limit))
            return [Row(row[0], row[1], _entry(bucket, row[1], row[2:])) for row in found]

        return self._store.run(command)


def check_version(entry: Entry | None, version: int) -> None:
    """Raise InvocationError `CONFLICT` unless the entry is at `version` (0: there is none)."""
    found = entry.version if entry else 0
    if found != version:
        raise InvocationError(CONFLICT, f"the value is at version {found}, not {version}", details={"version": found})


def _reserve(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE version SET reserved = reserved + ?", (RESERVE,))
    mark: int = connection.execute("SELECT reserved FROM version").fetchone()[0]
    return mark


def _find(connection: sqlite3.Connection, bucket: str, key: str) -> tuple[int | None, Entry | None]:
    found = connection.execute(_FIND, (bucket, key)).fetchone()
    if found is None:
        return None, None
    return found[0], _entry(bucket, key, found[1:])


def _entry(bucket: str, key: str, row: tuple[bytes, int, int]) -> Entry:
    value, version, checksum = row
    if _checksum(f"{bucket}\0{key}\0{version}", value) != checksum:
        raise InvocationError(CORRUPT, f"the stored value of {key} in {bucket} is damaged", details={"key": key})
    return Entry(value, version)


def _append(connection: sqlite3.Connection, topic: str, body: bytes) -> JournalEntry:
    position = connection.execute(_APPEND, (topic, body, _checksum(topic, body))).lastrowid
    assert position is not None
    return JournalEntry(position, topic, body)


def _journal_entry(row: tuple[int, str, bytes, int]) -> JournalEntry:
    position, topic, body, checksum = row
    if _checksum(topic, body) != checksum:
        raise InvocationError(CORRUPT, f"the journal is damaged at position {position}")
    return JournalEntry(position, topic, body)


def _checksum(head: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(head.encode()))
