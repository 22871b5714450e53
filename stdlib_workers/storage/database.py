"""Opening a database file: lock it, create it whole, or accept it only after checks; never repair, never delete.

A file is refused (exit code 5) when it is empty, foreign, of a newer schema, read-only, damaged, or was cut off from
its write-ahead log. A connection may be used on the thread that opened it only.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stdlib_workers.storage.checksums import add_checksum_function
from stdlib_workers.storage.errors import EXIT_IO, EXIT_REFUSED, EXIT_TAKEN, Refusal, is_disks_own

# How long SQLite waits for another program's lock on the file, in seconds.
BUSY_TIMEOUT = 5.0
# The kernel ends the workers of a killed engine with it, but a new engine may be faster, and a refusal is final.
LOCK_TIMEOUT = 5.0
LOCK_RETRY_INTERVAL = 0.02
# Pages of 4 KiB in the log after which a commit also moves them into the file: 8 MiB.
CHECKPOINT_PAGES = 2000
# Up to this size the whole file is checked at every start; a larger one only by `quick_check`, which skips indexes.
FULL_CHECK_BYTES = 64 * 1024 * 1024
# Above this even that would delay the start by seconds; the checksum of each row still guards every read.
QUICK_CHECK_BYTES = 1024 * 1024 * 1024
# One row in every file, beside the worker's own tables: whether a process has the file open, or died with it open.
_LIFE = "CREATE TABLE iii_life (is_open INTEGER NOT NULL) STRICT; INSERT INTO iii_life VALUES (0);"


@dataclass(frozen=True)
class Schema:
    """What a worker's file holds.

    `application_id` tells its files from those of other programs, `create` is the DDL of an empty file, `upgrades[n]`
    turns schema version n + 1 into n + 2.
    """

    application_id: int
    create: str
    upgrades: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """The version that `create` makes; counts from 1."""
        return len(self.upgrades) + 1


def lock(path: Path, timeout: float = LOCK_TIMEOUT) -> int:
    """Return the descriptor that holds the lock of `path`. Refusal (exit code 4) when another process has it.

    It is an `flock` on `NAME.lock` beside the file. The kernel drops the lock with its holder, so a crash leaves
    nothing to clean up. The lock file's text is the holder's pid, for the message only.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = path.with_name(path.name + ".lock")
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + timeout
    while True:
        try:
            # Waiting for the lock in the kernel would have no timeout: try again.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise Refusal(f"{path} is in use by process {holder}; stop that engine first", EXIT_TAKEN) from None
        time.sleep(LOCK_RETRY_INTERVAL)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def open_database(path: Path | None, schema: Schema) -> sqlite3.Connection:
    """Return a connection to `path` (None: in memory) for the calling thread. Refusal when it must not be used."""
    if path is None:
        connection = _connect(":memory:")
        _create(connection, schema)
        return connection
    try:
        if not path.exists():
            _create_file(path, schema)
        return _open_file(path, schema)
    except sqlite3.Error as error:
        refused = refusal(path, str(error))
        # A lock from outside, a full or failing disk: nothing is wrong with the file, another start may succeed.
        refused.exit_code = EXIT_IO if is_disks_own(error) else EXIT_REFUSED
        raise refused from error


def close_database(connection: sqlite3.Connection) -> None:
    """Close the file, noting in it that its log is complete."""
    try:
        connection.execute("UPDATE iii_life SET is_open = 0")
    finally:
        connection.close()


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    add_checksum_function(connection)
    return connection


def _create(connection: sqlite3.Connection, schema: Schema) -> None:
    connection.executescript(
        f"BEGIN; {schema.create} {_LIFE} PRAGMA application_id = {schema.application_id};"
        f" PRAGMA user_version = {schema.version}; COMMIT;"
    )


def _create_file(path: Path, schema: Schema) -> None:
    # Under another name first: a file called `path` is complete, or has been damaged later.
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = _connect(new)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        _create(connection, schema)
    finally:
        connection.close()
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _open_file(path: Path, schema: Schema) -> sqlite3.Connection:
    size = path.stat().st_size
    if size == 0:
        raise refusal(path, "it is empty")
    has_log = path.with_name(path.name + "-wal").exists()
    connection = _connect(path)
    try:
        _check_identity(connection, path, schema)
        # A process that dies without closing leaves the log. If it is gone, acknowledged commits went with it.
        is_open = connection.execute("SELECT is_open FROM iii_life").fetchone()[0]
        if is_open and not has_log:
            raise refusal(path, f"its log {path.name}-wal is missing, and the last commits with it")
        if size <= QUICK_CHECK_BYTES:
            check = "integrity_check" if size <= FULL_CHECK_BYTES else "quick_check"
            problem = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
            if problem != "ok":
                raise refusal(path, f"it is damaged: {problem}")
        _configure(connection, path)
        for step in range(_pragma(connection, "user_version"), schema.version):
            connection.executescript(f"BEGIN; {schema.upgrades[step - 1]} PRAGMA user_version = {step + 1}; COMMIT;")
        _mark_open(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_identity(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    application_id = _pragma(connection, "application_id")
    if application_id != schema.application_id:
        raise refusal(path, f"it belongs to another program (application id {application_id})")
    version = _pragma(connection, "user_version")
    if not 1 <= version <= schema.version:
        raise Refusal(
            f"{path} has schema version {version}, this iii knows up to {schema.version}; "
            "start the newer iii that wrote it, nothing was changed"
        )


def _configure(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise refusal(path, "its file system cannot hold a write-ahead log")
    # mmap stays off: a page that cannot be read must be an error, not a signal.
    for setting in ("synchronous = FULL", "mmap_size = 0", "trusted_schema = OFF", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT * 1000)}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")


def _mark_open(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE iii_life SET is_open = 1")
    try:
        # Moved into the file itself: in the log alone, the note would be lost together with the log.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:
        # The caller closes the file, which removes the log: the note must not stay without it.
        with suppress(sqlite3.Error):
            connection.execute("UPDATE iii_life SET is_open = 0")
        raise


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def refusal(path: Path, why: str) -> Refusal:
    """Return the refusal of a file; its text says what the user can do."""
    return Refusal(
        f"{path} cannot be used: {why}. Nothing was changed. Save what is left with "
        f"`sqlite3 {path} .recover | sqlite3 {path}.recovered`, or move it away with its -wal and -shm to start empty"
    )
