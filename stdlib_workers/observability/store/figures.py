"""The table of figures: numbers by name that outlive the worker. Commands for the storage thread."""

from __future__ import annotations

import sqlite3

from stdlib_workers.observability.store.sound_rows import read_rows, sound_fields
from stdlib_workers.storage import row_checksum


def figure(connection: sqlite3.Connection, name: str, instead: int = 0) -> int:
    """Return a figure; 0 for one that nothing has kept yet. A damaged one becomes `instead`, and the log says so."""
    rows = read_rows(connection, "SELECT name, value, checksum FROM figures WHERE name = ?", (name,))
    if not rows:
        return 0
    for _, value in sound_fields(f"the figure {name}", rows):
        return int(value)
    keep_figure(connection, name, instead)
    return instead


def keep_figure(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO figures VALUES (?, ?, ?)", (name, value, row_checksum(name, value)))
