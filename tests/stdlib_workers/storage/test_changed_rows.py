"""What a transaction has changed, as rows that are kept elsewhere; no server, no process."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from stdlib_workers.storage import KEY_VALUE_SCHEMA, Refusal, Schema
from stdlib_workers.storage.changed_rows import ChangedRows, StoredRow, stored_row, values_of
from stdlib_workers.storage.database import open_in_memory

SCHEMA = Schema(
    0x69696D74,
    """
    CREATE TABLE thing (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, body BLOB) STRICT;
    CREATE TABLE pair (a TEXT, b INTEGER, c REAL, PRIMARY KEY (a, b)) STRICT, WITHOUT ROWID;
    CREATE TABLE plain (text TEXT) STRICT;
    """,
)


class Kept:
    """A database, and the rows that were kept of it."""

    def __init__(self, schema: Schema = SCHEMA) -> None:
        self.connection = open_in_memory(schema)
        self.changed = ChangedRows(self.connection)
        self.rows = {row.place: row for row in self.changed.whole()}

    def run(self, *statements: tuple[Any, ...]) -> list[str]:
        """Run a transaction, and return the places of what it has changed."""
        self.connection.execute("BEGIN")
        for statement, *values in statements:
            self.connection.execute(statement, values)
        rows = self.changed.take()
        self.connection.execute("COMMIT")
        self.changed.committed()
        self.rows.update((row.place, row) for row in rows)
        return sorted(row.place for row in rows)

    def loaded(self) -> list[str]:
        """Return the dump of another database that has loaded what was kept."""
        other = open_in_memory(SCHEMA)
        ChangedRows(other).load([row for row in self.rows.values() if row.content])
        return dump(other)


def dump(connection: sqlite3.Connection) -> list[str]:
    return sorted(line for line in connection.iterdump() if line.startswith("INSERT"))


def test_what_is_loaded_is_what_was_written_changed_and_deleted() -> None:
    kept = Kept()
    changed = kept.run(
        ("INSERT INTO thing (name, body) VALUES (?, ?)", "a", b"\0\xff"),
        ("INSERT INTO pair VALUES ('x', 1, 0.5), ('x', 2, NULL)",),
        ("INSERT INTO plain VALUES ('one'), ('two')",),
        ("UPDATE thing SET body = x'01' WHERE name = 'a'",),
    )
    assert [place.partition(".")[0] for place in changed] == [
        *("pair", "pair", "plain", "plain", "sqlite_sequence", "thing")
    ]
    assert kept.loaded() == dump(kept.connection)
    assert len(kept.run(("UPDATE pair SET b = 3 WHERE b = 2",))) == 2  # its place, too
    assert kept.run(("DELETE FROM plain WHERE text = 'one'",)) == ["plain.1"]
    assert kept.rows["plain.1"].content == b""
    kept.run(("REPLACE INTO pair VALUES ('x', 1, 7)",))
    kept.run(("INSERT INTO thing (name) VALUES ('a') ON CONFLICT (name) DO UPDATE SET body = x'05'",))
    assert kept.loaded() == dump(kept.connection)


def test_a_position_is_not_used_twice_although_its_row_is_gone() -> None:
    kept = Kept()
    kept.run(("INSERT INTO thing (name) VALUES ('a')",), ("DELETE FROM thing",))
    assert any("sqlite_sequence" in line and "1" in line for line in kept.loaded())


def test_what_was_rolled_back_is_not_kept_and_nothing_is_kept_twice() -> None:
    kept = Kept()
    kept.connection.execute("BEGIN")
    kept.connection.execute("INSERT INTO plain VALUES ('gone')")
    assert len(kept.changed.take()) == 1
    kept.connection.execute("ROLLBACK")
    assert kept.run() == []
    assert kept.run(("INSERT INTO plain VALUES ('there')",)) == ["plain.1"]
    assert kept.run() == []


def test_row_14_a_damaged_row_is_refused_by_name() -> None:
    kept = Kept()
    kept.run(("INSERT INTO plain VALUES ('text')",))
    place, content = kept.rows["plain.1"]
    for index in range(len(content)):
        wrong = content[:index] + bytes([content[index] ^ 4]) + content[index + 1 :]
        with pytest.raises(Refusal, match=r"plain\.1"):
            values_of(StoredRow(place, wrong))
    with pytest.raises(Refusal, match=r"plain\.2"):
        values_of(StoredRow("plain.2", content))  # in another place
    for short in (b"", b"123", content[:-1]):
        with pytest.raises(Refusal):
            values_of(StoredRow(place, short))


def test_rows_of_another_schema_or_an_unknown_table_are_refused() -> None:
    other = Kept(KEY_VALUE_SCHEMA)
    with pytest.raises(Refusal, match="same version"):
        ChangedRows(open_in_memory(SCHEMA)).load([other.rows["schema"]])
    with pytest.raises(Refusal, match="unknown table, nothing"):
        ChangedRows(open_in_memory(SCHEMA)).load([stored_row("nothing.1", [1])])


def test_keys_of_users_make_places_that_are_subjects() -> None:
    kept = Kept()
    places = kept.run(*[("INSERT INTO pair VALUES (?, 1, 1)", key) for key in ("a b", ">", "*.\t", "x" * 5000, "é")])
    assert all(set(place) <= set(map(chr, range(33, 127))) - set("*>") and len(place) < 40 for place in places)
    assert kept.loaded() == dump(kept.connection)
