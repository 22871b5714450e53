"""The table of figures: numbers by name that outlive the worker. Commands for the storage thread."""

from __future__ import annotations

import sqlite3

_KEEP = "INSERT INTO figures (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


def figure(connection: sqlite3.Connection, name: str) -> int:
    """Return a figure; 0 for one that nothing has kept yet."""
    row = connection.execute("SELECT value FROM figures WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def keep_figure(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute(_KEEP, (name, value))
