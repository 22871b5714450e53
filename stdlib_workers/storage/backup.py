"""Copies of databases: of an open one beside its work, of a closed one, and the check of a copy before it is used.

A copy is one file, whole by itself, and belongs to no epoch: whoever opens it begins a new one, since positions that
were given out after the copy was made mean something else in it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from stdlib_workers.storage.database import examine, lock, real_path
from stdlib_workers.storage.errors import Refusal

# Pages of 4 KiB that are copied between two looks at the commands that wait: 1 MiB.
STEP_PAGES = 256


def copy_database(connection: sqlite3.Connection, path: Path, serve: Callable[..., None] | None = None) -> Path:
    """Copy an open database to `NAME.copy` beside it; `serve` is called after each step. Returns the path."""
    target = path.with_name(f"{path.name}.copy")
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        copy = sqlite3.connect(target, isolation_level=None)
        try:
            connection.backup(copy, pages=STEP_PAGES, progress=serve)
            copy.execute("PRAGMA journal_mode = DELETE")
            names = [row[1] for row in copy.execute("PRAGMA table_info(iii_life)")]
            copy.execute(f"UPDATE iii_life SET is_open = 0{', epoch = 0' if 'epoch' in names else ''}")
        finally:
            copy.close()
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target


def copy_closed(path: Path) -> Path:
    """Copy a database that no process has open. Returns the path of the copy.

    Refusal when a process has it open, or when it must not be used.
    """
    real = real_path(path)
    descriptor = lock(real, timeout=0)
    try:
        examine(real)
        # Read-only, for it may be the last whole copy of a damaged project.
        connection = sqlite3.connect(f"{real.as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            return copy_database(connection, real)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise Refusal(f"{path} cannot be copied: {error}") from error
    finally:
        os.close(descriptor)
