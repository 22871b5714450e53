"""The seam of `keyvalue.py` over SQLite: a table of entries with a checksum in every row, and the journal beside it.

A flipped bit in a row is found when the row is read and becomes `storage_corrupt`; it is never served.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from iii import InvocationError
from stdlib_workers.storage.cache import Cache
from stdlib_workers.storage.database import Schema
from stdlib_workers.storage.keyvalue import Announce, Change, Decide, Entry, Row, Watch
from stdlib_workers.storage.pending import Pending
from stdlib_workers.storage.sqlite_journal import JOURNAL_TABLES, SqliteJournal, append
from stdlib_workers.storage.store import Store
from stdlib_workers.storage.write_buffer import WriteBuffer, entry_from

CONFLICT = "CONFLICT"
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
        CREATE TABLE bucket (name TEXT PRIMARY KEY, entries INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        {JOURNAL_TABLES}
        CREATE TABLE version (reserved INTEGER NOT NULL) STRICT;
        INSERT INTO version VALUES (0);
    """,
)

_LIST = "SELECT id, key, value, version, checksum FROM entry WHERE bucket = ? AND id > ? ORDER BY id LIMIT ?"


class SqliteKeyValue:
    """Keys and journal in one `Store` that was opened with KEY_VALUE_SCHEMA."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._watchers: list[Watch] = []
        self._version = self._reserved = 0
        self._recent = Cache()
        self._gathered = WriteBuffer(self._recent)
        store.attach(self._gathered)
        store.run(_reserve, then=self._start_versions).result()
        self._journal = SqliteJournal(store)

    @property
    def journal(self) -> SqliteJournal:
        """The journal in the same file."""
        return self._journal

    def recent(self, bucket: str, key: str) -> Entry | None:
        """Return a durable entry that is at hand; None only means to ask `get`. Safe on any thread."""
        return self._recent.find(bucket, key)

    def get(self, bucket: str, key: str, then: Callable[[Entry | None], None] | None = None) -> Pending[Entry | None]:
        """Return an entry. `then` gets it first, in order with what watchers get."""
        return self._store.run(lambda connection: self._gathered.find(connection, bucket, key), then=then)

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
            with self._gathered.rollback_on_error():
                return [self._change(connection, write, announce) for write in writes]

        def tell(changes: list[Change]) -> None:
            for change in changes:
                self._tell(change)

        return self._store.run(command, then=tell)

    def _change(
        self, connection: sqlite3.Connection, write: tuple[str, str, Decide], announce: Announce | None
    ) -> Change:
        bucket, key, decide = write
        old = self._gathered.find(connection, bucket, key)
        value = decide(old)
        new = None if value is None else Entry(value, self._next_version())
        change = Change(bucket, key, old, new)
        lines = announce(change) if announce is not None else ()
        if lines:
            change = change._replace(journal=[append(connection, *line) for line in lines])
        # Last, because it cannot fail: what is gathered would not be undone with its command.
        if new is not None:
            self._gathered.write(bucket, key, new, is_new=old is None)
        elif old is not None:
            self._gathered.delete(connection, bucket, key)
        return change

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
            self._gathered.flush(connection)
            found = connection.execute("SELECT entries FROM bucket WHERE name = ?", (bucket,)).fetchone()
            return found[0] if found else 0

        return self._store.run(command)

    def buckets(self) -> Pending[list[str]]:
        """Return the buckets that hold a key, sorted."""

        def command(connection: sqlite3.Connection) -> list[str]:
            self._gathered.flush(connection)
            found = connection.execute("SELECT name FROM bucket WHERE entries > 0 ORDER BY name")
            return [row[0] for row in found]

        return self._store.run(command)

    def watch(self, callback: Watch) -> None:
        """Call `callback` after every change from now on."""
        self._watchers.append(callback)

    def list(self, bucket: str, after: int = 0, limit: int | None = None) -> Pending[list[Row]]:
        """Return the entries of a bucket in the order of their first write, `limit` of them after a position."""

        def command(connection: sqlite3.Connection) -> list[Row]:
            self._gathered.flush(connection)
            found = connection.execute(_LIST, (bucket, after, -1 if limit is None else limit))
            return [Row(row[0], row[1], entry_from(bucket, row[1], row[2:])) for row in found]

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
