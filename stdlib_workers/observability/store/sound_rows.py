"""Reading rows with their checksums: what the disk has changed is told from what was stored, and never served as it.

Rows that were stored before rows had checksums have none, and are taken as they are.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from stdlib_workers.storage import row_checksum

# In the place of what the row has said.
DAMAGED = "(damaged on the disk)"


class Row(NamedTuple):
    """The fields of a row, and whether they are what was stored."""

    fields: tuple[Any, ...]
    is_sound: bool


def read_rows(connection: sqlite3.Connection, query: str, values: Any = ()) -> list[Row]:
    """Return the rows of a query whose last column is the checksum of those before it."""
    try:
        rows = connection.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if "UTF-8" not in str(error):
            raise
        # A text that is none any more must not keep others from reading the rows beside it.
        connection.text_factory = lambda text: text.decode(errors="replace")
        try:
            rows = connection.execute(query, values).fetchall()
        finally:
            connection.text_factory = str
    return [Row(row[:-1], row[-1] is None or row_checksum(*row[:-1]) == row[-1]) for row in rows]


def sound_fields(what: str, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    """Return the fields of the sound rows, and name those that are not in the worker's log."""
    damaged = sum(not row.is_sound for row in rows)
    if damaged:
        sys.stderr.write(f"observability: {what}: {damaged} damaged on the disk, left out\n")
    return [row.fields for row in rows if row.is_sound]
