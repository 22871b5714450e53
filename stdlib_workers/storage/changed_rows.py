"""The rows that a transaction has changed, as they are kept outside of SQLite: a place and its content each.

Temporary triggers note the keys of changed rows, so commands need not know that their rows are kept elsewhere, too. The
content has a checksum that covers the place: a row is served only where it was written.
"""

from __future__ import annotations

import base64
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from stdlib_workers.storage.errors import Refusal

# Bytes of the checksum before the content.
_CHECKSUM = 4
# The place of the schema's number, and SQLite's own table of the highest positions, which can have no trigger.
_SCHEMA, _SEQUENCES = "schema", "sqlite_sequence"
# A key that is no number becomes so many bytes of a digest: keys of users may be longer than a place.
_DIGEST = 16


class StoredRow(NamedTuple):
    """A row as it is kept: `place` is `TABLE.KEY`, letters, digits, `_` and `-`; no content for one that is deleted."""

    place: str
    content: bytes


class _Table(NamedTuple):
    """A table: the columns of its key, all columns, and those that an INSERT names, `rowid` among them if need be."""

    name: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]


class ChangedRows:
    """Notes what the transactions of a connection change. Use it on the connection's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        numbers = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        self._schema = stored_row(_SCHEMA, numbers)
        self._tables = {table.name: table for table in _tables_of(connection)}
        self._sequences: list[tuple[str, int]] = []
        for table in self._tables.values():
            connection.executescript(_triggers(table))

    def take(self) -> list[StoredRow]:
        """Return what the transaction has changed so far. Call it once, before the commit."""
        rows = [row for table in self._tables.values() for row in self._changed(table)]
        # A position that was used is never used again, even if its row is gone.
        return rows + [_sequence_row(*each) for each in self._read_sequences() if each not in self._sequences]

    def committed(self) -> None:
        """The transaction is durable: forget what it has changed."""
        self._sequences = self._read_sequences()

    def whole(self) -> list[StoredRow]:
        """Return all rows, and the schema's number: what a store begins with."""
        rows = [self._schema, *(_sequence_row(*each) for each in self._read_sequences())]
        for table in self._tables.values():
            columns = ", ".join((*table.keys, *table.columns))
            for row in self._connection.execute(f"SELECT {columns} FROM main.{table.name}"):
                rows.append(_row_of(table, row[: len(table.keys)], row[len(table.keys) :]))
        return rows

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take these rows in place of all that are there. Refusal for a damaged row, or one of another schema."""
        connection = self._connection
        connection.execute("BEGIN")
        for name in self._tables:
            connection.execute(f"DELETE FROM main.{name}")
        sequences = []
        for row in rows:
            values = values_of(row)
            name = row.place.partition(".")[0]
            if name == _SCHEMA:
                if row.content != self._schema.content:
                    raise Refusal(f"the cluster keeps rows of schema {values}: run the same version on all engines")
            elif name == _SEQUENCES:
                sequences.append(values)
            elif name in self._tables:
                columns = self._tables[name].columns
                marks = ", ".join("?" * len(columns))
                connection.execute(f"INSERT INTO main.{name} ({', '.join(columns)}) VALUES ({marks})", values)
            else:
                raise Refusal(f"the cluster keeps a row of an unknown table, {row.place}")
        if sequences:  # last: inserting rows has made some
            connection.execute(f"DELETE FROM {_SEQUENCES}")
            connection.executemany(f"INSERT INTO {_SEQUENCES} (name, seq) VALUES (?, ?)", sequences)
        for name in self._tables:
            connection.execute(f"DELETE FROM temp.changed_{name}")
        connection.execute("COMMIT")
        self.committed()

    def _changed(self, table: _Table) -> Iterator[StoredRow]:
        keys, first = len(table.keys), table.keys[0]
        same = " AND ".join(f"row.{key} = changed.{_noted(key)}" for key in table.keys)
        columns = [*(f"changed.{_noted(key)}" for key in table.keys), *(f"row.{name}" for name in table.columns)]
        query = f"SELECT row.{first} IS NULL, {', '.join(columns)} FROM temp.changed_{table.name} changed"
        found = self._connection.execute(f"{query} LEFT JOIN main.{table.name} row ON {same}").fetchall()
        if not found:
            return
        self._connection.execute(f"DELETE FROM temp.changed_{table.name}")
        for is_gone, *values in found:
            key = tuple(values[:keys])
            yield StoredRow(_place(table, key), b"") if is_gone else _row_of(table, key, values[keys:])

    @property
    def _has_sequences(self) -> bool:
        query = f"SELECT 1 FROM sqlite_schema WHERE name = '{_SEQUENCES}'"
        return self._connection.execute(query).fetchone() is not None

    def _read_sequences(self) -> list[tuple[str, int]]:
        if not self._has_sequences:
            return []
        return self._connection.execute(f"SELECT name, seq FROM {_SEQUENCES}").fetchall()


def stored_row(place: str, values: Iterable[Any]) -> StoredRow:
    """Return a row with its checksum."""
    body = msgspec.msgpack.encode(list(values))
    return StoredRow(place, zlib.crc32(body, zlib.crc32(place.encode())).to_bytes(_CHECKSUM) + body)


def values_of(row: StoredRow) -> list[Any]:
    """Return the values of a row. Refusal, which names the row, when it is not as it was written."""
    body = row.content[_CHECKSUM:]
    try:
        if zlib.crc32(body, zlib.crc32(row.place.encode())).to_bytes(_CHECKSUM) == row.content[:_CHECKSUM]:
            return list(msgspec.msgpack.decode(body, type=list[Any]))
    except msgspec.DecodeError:
        pass  # a stranger's message, or damage that the checksum misses
    raise Refusal(f"the row {row.place} that the NATS servers keep is damaged and is not served: restore a backup")


def _sequence_row(name: str, number: int) -> StoredRow:
    return stored_row(f"{_SEQUENCES}.{name}", (name, number))


def _row_of(table: _Table, key: Iterable[Any], values: Iterable[Any]) -> StoredRow:
    return stored_row(_place(table, key), values)


def _place(table: _Table, key: Iterable[Any]) -> str:
    values = list(key)
    if len(values) == 1 and isinstance(values[0], int):
        return f"{table.name}.{values[0]}"
    digest = blake2b(msgspec.msgpack.encode(values), digest_size=_DIGEST).digest()
    return f"{table.name}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _tables_of(connection: sqlite3.Connection) -> Iterator[_Table]:
    query = (
        "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    for name, has_no_rowid in connection.execute(query).fetchall():
        info = connection.execute(f"PRAGMA main.table_info({name})").fetchall()
        columns = tuple(row[1] for row in info)
        keys = tuple(row[1] for row in sorted(info, key=lambda row: row[5]) if row[5])
        is_rowid = len(keys) == 1 and any(row[5] and row[2] == "INTEGER" for row in info)
        if has_no_rowid or is_rowid:
            yield _Table(name, keys, columns)
        else:
            yield _Table(name, ("rowid",), ("rowid", *columns))


def _noted(key: str) -> str:
    return f"{key}_noted"  # `rowid` itself would be that of the table of notes


def _triggers(table: _Table) -> str:
    notes = f"changed_{table.name}"
    columns = ", ".join(_noted(key) for key in table.keys)

    def note(row: str) -> str:
        values = ", ".join(f"{row}.{key}" for key in table.keys)
        same = " AND ".join(f"{_noted(key)} = {row}.{key}" for key in table.keys)
        # No OR clause: that of the statement which fires the trigger would win.
        return f"INSERT INTO {notes} SELECT {values} WHERE NOT EXISTS (SELECT 1 FROM {notes} WHERE {same});"

    return f"""
        CREATE TEMP TABLE {notes} ({columns}, PRIMARY KEY ({columns})) WITHOUT ROWID;
        CREATE TEMP TRIGGER {notes}_insert AFTER INSERT ON main.{table.name} BEGIN {note("new")} END;
        CREATE TEMP TRIGGER {notes}_update AFTER UPDATE ON main.{table.name} BEGIN {note("old")} {note("new")} END;
        CREATE TEMP TRIGGER {notes}_delete AFTER DELETE ON main.{table.name} BEGIN {note("old")} END;
    """
