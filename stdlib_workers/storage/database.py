"""Opening a database file: create it whole, or accept it only after looking; never repair, never delete.

A file is refused (exit code 5) when it is empty, foreign, of a newer schema, read-only, damaged, or was cut off from
its write-ahead log. `Store` calls this on the one thread that will use the connection.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stdlib_workers.storage.errors import EXIT_IO, EXIT_REFUSED, Refusal, is_disks_own

# How long another program's lock on the file is waited for, in milliseconds.
BUSY_TIMEOUT_MS = 5000
# Pages of 4 KiB in the log after which a commit also moves them into the file: 8 MiB.
CHECKPOINT_PAGES = 2000
# Up to this size the whole file is checked at every start; a larger one only by `quick_check`, which skips indexes.
FULL_CHECK_BYTES = 64 * 1024 * 1024
# Above this even that would delay the start by seconds; the checksum of each row still guards every read.
QUICK_CHECK_BYTES = 1024 * 1024 * 1024
# One row in every file, beside the worker's own tables: whether the last owner closed it.
_LIFE = "CREATE TABLE iii_life (is_open INTEGER NOT NULL) STRICT; INSERT INTO iii_life VALUES (0);"


@dataclass(frozen=True)
class Schema:
    """What a worker's file holds.

    `application_id` tells its files from others', `create` is the DDL of an empty one, `upgrades[n]` turns schema
    version n + 1 into n + 2.
    """

    application_id: int
    create: str
    upgrades: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """The version that `create` makes; counts from 1."""
        return len(self.upgrades) + 1


def open_database(path: Path | None, schema: Schema) -> sqlite3.Connection:
    """Return a connection to `path` (None: in memory) for the calling thread. Refusal when it must not be used."""
    if path is None:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        _create(connection, schema)
        return connection
    with _named(path):
        if not path.exists():
            _create_file(path, schema)
        return _open_file(path, schema)


def close_database(connection: sqlite3.Connection) -> None:
    """Close the file, noting in it that its log is complete."""
    try:
        connection.execute("UPDATE iii_life SET is_open = 0")
    finally:
        connection.close()


def _create(connection: sqlite3.Connection, schema: Schema) -> None:
    connection.executescript(
        f"BEGIN; {schema.create} {_LIFE} PRAGMA application_id = {schema.application_id};"
        f" PRAGMA user_version = {schema.version}; COMMIT;"
    )


def _create_file(path: Path, schema: Schema) -> None:
    # Under another name first: a file of that name is complete, or somebody has damaged it.
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(new, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        _create(connection, schema)
    finally:
        connection.close()
    new.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_file(path: Path, schema: Schema) -> sqlite3.Connection:
    if path.stat().st_size == 0:
        raise refusal(path, "it is empty")
    has_log = path.with_name(path.name + "-wal").exists()
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        _check_identity(connection, path, schema)
        _check_log(connection, path, has_log=has_log)
        _check_pages(connection, path)
        _configure(connection, path)
        _upgrade(connection, schema)
        _mark_open(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        refused = refusal(path, str(error))
        # A lock from outside, a full or failing disk: nothing is wrong with the file, another start may succeed.
        refused.exit_code = EXIT_IO if is_disks_own(error) else EXIT_REFUSED
        raise refused from error


def _check_identity(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    found = _pragma(connection, "application_id")
    if found != schema.application_id:
        raise refusal(path, f"it belongs to another program (application id {found})")
    version = _pragma(connection, "user_version")
    if not 1 <= version <= schema.version:
        raise Refusal(
            f"{path} has schema version {version}, this iii knows up to {schema.version}; "
            "start the newer iii that wrote it, nothing was changed"
        )


def _check_log(connection: sqlite3.Connection, path: Path, *, has_log: bool) -> None:
    # Whoever dies without closing leaves the log. If it is gone, commits that were acknowledged went with it.
    is_open = connection.execute("SELECT is_open FROM iii_life").fetchone()[0]
    if is_open and not has_log:
        raise refusal(path, f"its log {path.name}-wal is missing, and the last commits with it")


def _check_pages(connection: sqlite3.Connection, path: Path) -> None:
    size = path.stat().st_size
    if size > QUICK_CHECK_BYTES:
        return
    check = "integrity_check" if size <= FULL_CHECK_BYTES else "quick_check"
    found = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
    if found != "ok":
        raise refusal(path, f"it is damaged: {found}")


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise refusal(path, "its file system cannot hold a write-ahead log")
    # mmap stays off: a page that cannot be read must be an error, not a signal.
    for setting in ("synchronous = FULL", "mmap_size = 0", "trusted_schema = OFF", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def _upgrade(connection: sqlite3.Connection, schema: Schema) -> None:
    version = _pragma(connection, "user_version")
    for step in range(version, schema.version):
        connection.executescript(f"BEGIN; {schema.upgrades[step - 1]} PRAGMA user_version = {step + 1}; COMMIT;")


def _mark_open(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE iii_life SET is_open = 1")
    try:
        # Into the file itself, or losing the log would lose the mark with it.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:
        # The file is about to be closed, which removes the log: the mark must not outlive it.
        with suppress(sqlite3.Error):
            connection.execute("UPDATE iii_life SET is_open = 0")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def refusal(path: Path, why: str) -> Refusal:
    """Return the refusal of a file, with the way out."""
    return Refusal(
        f"{path} cannot be used: {why}. Nothing was changed. Save what is left with "
        f"`sqlite3 {path} .recover | sqlite3 {path}.recovered`, or move it away with its -wal and -shm to start empty"
    )
