"""Entries in memory: those that were read or written lately, and those that one transaction writes.

The storage thread writes the cache, after each commit, in the order of commits; any thread reads it without a lock (one
dict lookup). It never holds what is not durable. The write buffer is the transaction hook of the store behind a
`SqliteKeyValue`: one statement writes all keys at the end of a transaction. A command reads what the commands before it
in the same transaction have written: from the buffer, else from the cache, else from the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from stdlib_workers.storage.checksums import check_row, row_checksum
from stdlib_workers.storage.errors import CORRUPT, StorageFailure
from stdlib_workers.storage.sqlite_journal import SqliteJournal, checksum_of
from stdlib_workers.storage.store import TransactionHook

# Rows of one statement: more gain nothing, and each count is a statement of its own to prepare.
MAX_ROWS = 64
MAX_CACHE_BYTES = 64 * 1024 * 1024
# What a dict entry and its strings cost beside the value.
OVERHEAD = 200

_FIND = "SELECT value, version, checksum FROM entry WHERE bucket = ? AND key = ?"
_DELETE = "DELETE FROM entry WHERE bucket = ? AND key = ?"


class Entry(NamedTuple):
    """A stored value. `version` grows with every write of the store; 0 never occurs."""

    value: bytes
    version: int


class Cache:
    """Entries by bucket and key, the oldest dropped first when they are over `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: dict[tuple[str, str], Entry] = {}
        self._bytes = 0

    def find(self, bucket: str, key: str) -> Entry | None:
        """Return an entry; None means only that the cache does not hold it."""
        return self._entries.get((bucket, key))

    def keep(self, bucket: str, key: str, entry: Entry | None) -> None:
        """Hold the current entry of a key, None for a key that does not exist."""
        old = self._entries.pop((bucket, key), None)
        if old is not None:
            self._bytes -= len(old.value) + OVERHEAD
        if entry is None:
            return
        self._entries[bucket, key] = entry
        self._bytes += len(entry.value) + OVERHEAD
        while self._bytes > self._max_bytes:
            oldest = next(iter(self._entries))
            self._bytes -= len(self._entries.pop(oldest).value) + OVERHEAD

    def __repr__(self) -> str:
        return f"<Cache {len(self._entries)} entries, {self._bytes} bytes>"


class WriteBuffer(TransactionHook):
    """Entries by bucket and key, None for a deleted one. `recent` gets them after the commit.

    The logs of `journal` are kept within their bounds in the same step.
    """

    def __init__(self, recent: Cache, journal: SqliteJournal) -> None:
        self._recent = recent
        self._journal = journal
        self._entries: dict[tuple[str, str], Entry | None] = {}
        self._unwritten: dict[tuple[str, str], Entry] = {}
        self._counts: dict[str, int] = {}

    def begin(self) -> None:
        self._entries.clear()
        self._unwritten.clear()
        self._counts.clear()
        if self._journal.retention is not None:
            self._journal.retention.begin()

    @contextmanager
    def rollback_on_error(self) -> Iterator[None]:
        """Forget all writes of one command when it fails."""
        before = dict(self._entries), dict(self._unwritten), dict(self._counts)
        try:
            yield
        except BaseException:
            self._entries, self._unwritten, self._counts = before
            raise

    def find(self, connection: sqlite3.Connection, bucket: str, key: str) -> Entry | None:
        """Return an entry as this transaction sees it. InvocationError `storage_corrupt` for a damaged one."""
        place = (bucket, key)
        if place in self._entries:
            return self._entries[place]
        entry = self._recent.find(bucket, key)
        if entry is None:
            row = connection.execute(_FIND, place).fetchone()
            if row is not None:
                entry = entry_from(bucket, key, row)
                self._recent.keep(bucket, key, entry)
        return entry

    def write(self, bucket: str, key: str, entry: Entry, *, is_new: bool) -> None:
        self._entries[bucket, key] = self._unwritten[bucket, key] = entry
        if is_new:
            self._counts[bucket] = self._counts.get(bucket, 0) + 1

    def delete(self, connection: sqlite3.Connection, bucket: str, key: str) -> int:
        """Remove a key that is there; returns how many its bucket has left.

        At once: written again it would otherwise keep its old place in listings.
        """
        self.flush(connection)
        connection.execute(_DELETE, (bucket, key))
        self._entries[bucket, key] = None
        return self._add_to_count(connection, bucket, -1)

    def count(self, connection: sqlite3.Connection, bucket: str) -> int:
        """Return how many keys a bucket has in the database."""
        row = connection.execute("SELECT entries, checksum FROM bucket WHERE name = ?", (bucket,)).fetchone()
        if row is None:
            return 0
        entries, checksum = row
        check_row(f"the count of {bucket}", checksum, bucket, entries)
        return int(entries)

    def _add_to_count(self, connection: sqlite3.Connection, bucket: str, more: int) -> int:
        entries = self.count(connection, bucket) + more
        if entries == 0:
            connection.execute("DELETE FROM bucket WHERE name = ?", (bucket,))
        else:
            row = (bucket, entries, row_checksum(bucket, entries))
            connection.execute("REPLACE INTO bucket VALUES (?, ?, ?)", row)
        return entries

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write everything to the database now, for a command that reads more than single keys."""
        rows = list(self._unwritten.items())
        for start in range(0, len(rows), MAX_ROWS):
            part = rows[start : start + MAX_ROWS]
            fields = [
                field
                for (bucket, key), entry in part
                for field in (bucket, key, entry.value, entry.version, _checksum(bucket, key, entry))
            ]
            connection.execute(_write_statement(len(part)), fields)
        self._unwritten.clear()
        for bucket, more in self._counts.items():
            self._add_to_count(connection, bucket, more)
        self._counts.clear()

    def finish(self, connection: sqlite3.Connection) -> None:
        """Write everything, and drop what is over the bounds of the logs."""
        self.flush(connection)
        if self._journal.retention is not None:
            self._journal.retention.finish(connection)

    def committed(self) -> None:
        """Put what is durable now into the cache."""
        if self._journal.retention is not None:
            self._journal.retention.committed()
        for (bucket, key), entry in self._entries.items():
            self._recent.keep(bucket, key, entry)


@cache
def _write_statement(rows: int) -> str:
    marks = ", ".join(["(?, ?, ?, ?, ?)"] * rows)
    return (
        f"INSERT INTO entry (bucket, key, value, version, checksum) VALUES {marks} ON CONFLICT (bucket, key) "
        "DO UPDATE SET value = excluded.value, version = excluded.version, checksum = excluded.checksum"
    )


def entry_from(bucket: str, key: str, row: tuple[bytes, int, int]) -> Entry:
    """Return the entry of a row (value, version, checksum). InvocationError `storage_corrupt` for a damaged one."""
    value, version, checksum = row
    entry = Entry(value, version)
    if _checksum(bucket, key, entry) != checksum:
        raise StorageFailure(CORRUPT, f"the stored value of {key} in {bucket} is damaged", details={"key": key})
    return entry


def _checksum(bucket: str, key: str, entry: Entry) -> int:
    return checksum_of(f"{bucket}\0{key}\0{entry.version}", entry.value)
