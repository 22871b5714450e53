"""The checksum of a row: the same in Python and in SQL, another one after any flipped bit."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import InvocationError
from stdlib_workers.storage import Schema, Store, check_row, row_checksum
from stdlib_workers.storage.checksums import Field, add_checksum_function

FIELDS = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.text(max_size=20),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
)


@given(st.lists(FIELDS, max_size=5))
def test_sql_computes_the_same_checksum(fields: list[Field]) -> None:
    connection = sqlite3.connect(":memory:")
    add_checksum_function(connection)
    marks = ", ".join("?" * len(fields))
    assert connection.execute(f"SELECT row_checksum({marks})", fields).fetchone() == (row_checksum(*fields),)
    connection.close()


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_flipped_bit_changes_the_checksum(body: bytes, data: st.DataObject) -> None:
    damaged = bytearray(body)
    damaged[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert row_checksum("id", bytes(damaged)) != row_checksum("id", body)


@pytest.mark.parametrize("others", [("ab", ""), ("a", b"b"), ("a", "b", None), ("b", "a")])
def test_fields_that_differ_in_type_place_or_number_differ(others: tuple[Field, ...]) -> None:
    assert row_checksum("a", "b") != row_checksum(*others)


def test_a_damaged_row_is_refused_by_its_name() -> None:
    check_row("job 1", row_checksum(1, b"x"), 1, b"x")
    with pytest.raises(InvocationError, match="job 1 is damaged on the disk"):
        check_row("job 1", row_checksum(1, b"x"), 1, b"y")


def test_an_upgrade_can_give_old_rows_their_checksums(tmp_path: Path) -> None:
    table = "CREATE TABLE job (id INTEGER PRIMARY KEY, data BLOB) STRICT;"
    upgrade = "ALTER TABLE job ADD COLUMN checksum INTEGER; UPDATE job SET checksum = row_checksum(id, data);"
    store = Store(tmp_path / "jobs.db", Schema(0x77, table))
    store.run(lambda connection: connection.execute("INSERT INTO job VALUES (1, x'01')") and None).result(10)
    store.close()
    store = Store(tmp_path / "jobs.db", Schema(0x77, table, (upgrade,)))
    rows = store.run(lambda connection: connection.execute("SELECT * FROM job").fetchall()).result(10)
    assert rows == [(1, b"\x01", row_checksum(1, b"\x01"))]
    store.close()
