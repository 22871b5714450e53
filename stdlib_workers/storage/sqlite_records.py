"""Records: a few small facts that belong to the data, by kind and id, such as known bindings.

They are in the file of the keys (`sqlite_keyvalue.py`), each with its checksum.
"""

from __future__ import annotations

import sqlite3

from stdlib_workers.storage.checksums import check_row, row_checksum
from stdlib_workers.storage.pending import Pending
from stdlib_workers.storage.store import Store

RECORD_TABLE = """
        CREATE TABLE record (
            kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL,
            PRIMARY KEY (kind, id)
        ) STRICT, WITHOUT ROWID;
"""


class SqliteRecords:
    """The records of a `SqliteKeyValue`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, kind: str, id: str, body: bytes) -> Pending[None]:
        """Write a record, in place of the one of the same kind and id."""
        return self._store.run(lambda connection: put_record(connection, kind, id, body))

    def remove(self, kind: str, id: str) -> Pending[None]:
        """Forget a record; one that does not exist is no error."""

        def command(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM record WHERE kind = ? AND id = ?", (kind, id))

        return self._store.run(command)

    def read(self, kind: str) -> Pending[dict[str, bytes]]:
        """Return the records of a kind by id. InvocationError `storage_corrupt` names a damaged one."""
        return self._store.run(lambda connection: read_records(connection, kind))


def put_record(connection: sqlite3.Connection, kind: str, id: str, body: bytes) -> None:
    """Write a record inside a transaction."""
    connection.execute("REPLACE INTO record VALUES (?, ?, ?, ?)", (kind, id, body, row_checksum(kind, id, body)))


def read_records(connection: sqlite3.Connection, kind: str) -> dict[str, bytes]:
    """Return the records of a kind inside a transaction."""
    records = {}
    for id, body, checksum in connection.execute("SELECT id, body, checksum FROM record WHERE kind = ?", (kind,)):
        check_row(f"the record {id} of {kind}", checksum, kind, id, body)
        records[id] = body
    return records
