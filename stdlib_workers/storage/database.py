"""Opening a database file: lock it, create it whole, or accept it only after checks; never repair, never delete.

A file is refused (exit code 5) when it is empty, foreign, of a newer schema, read-only, damaged, or was cut off from
its write-ahead log. A connection may be used on the thread that opened it only.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stdlib_workers.storage.checksums import add_checksum_function
from stdlib_workers.storage.commit_mark import CommitMark, LogIndex, has_later_commit, read_mark
from stdlib_workers.storage.errors import EXIT_IO, EXIT_REFUSED, EXIT_TAKEN, Refusal, is_disks_own
from stdlib_workers.storage.open_file import OpenFile, log_of, mark_of

# How long SQLite waits for another program's lock on the file, in seconds.
BUSY_TIMEOUT = 5.0
# The kernel ends the workers of a killed engine with it, but a new engine may be faster, and a refusal is final.
LOCK_TIMEOUT = 5.0
LOCK_RETRY_INTERVAL = 0.02
# The first half of every application id of ours: "ii".
OUR_APPLICATIONS = 0x6969
# Pages in the log after which a commit also moves them into the file: 8 MiB.
CHECKPOINT_PAGES, PAGE_BYTES = 2000, 4096
# Up to this size the whole file is checked at every start; a larger one only by `quick_check`, which skips indexes.
FULL_CHECK_BYTES = 64 * 1024 * 1024
# Above this even that would delay the start by seconds; the checksum of each row still guards every read.
QUICK_CHECK_BYTES = 1024 * 1024 * 1024
# One row in every file, beside the worker's own tables: whether a process has the file open or died with it open, and
# the file's epoch.
_LIFE = """
    CREATE TABLE iii_life (is_open INTEGER NOT NULL, epoch INTEGER NOT NULL DEFAULT 0) STRICT;
    INSERT INTO iii_life VALUES (0, 0);
"""
# The epoch of a file is a random number up to this, drawn anew for a file that is made or restored; 0 is none.
MAX_EPOCH = 2**20 - 1


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


def open_in_memory(schema: Schema) -> sqlite3.Connection:
    """Return a connection to an empty database that has no file, for the calling thread."""
    connection = _connect(":memory:")
    _create(connection, schema)
    connection.execute("UPDATE iii_life SET epoch = ?", (_new_epoch(),))
    return connection


def open_database(path: Path, schema: Schema) -> OpenFile:
    """Open the file at `path` for the calling thread. Refusal when it must not be used."""
    real = real_path(path)
    try:
        if not real.exists():
            _create_file(real, schema)
        examine(real, schema)
        return _open_file(path, real, schema)
    except sqlite3.Error as error:
        refused = refusal(real, str(error))
        # A lock from outside, a full or failing disk: nothing is wrong with the file, another start may succeed.
        refused.exit_code = EXIT_IO if is_disks_own(error) else EXIT_REFUSED
        raise refused from error


def real_path(path: Path) -> Path:
    """Return the file behind a path. Its log, its lock and its mark are beside that file, not beside a link to it."""
    real = Path(os.path.realpath(path))
    if path.is_symlink() and not real.parent.is_dir():
        raise Refusal(f"{path} leads to {real}, and the folder {real.parent} is not there; is its disk mounted?")
    return real


def read_epoch(connection: sqlite3.Connection) -> int:
    """Return the epoch of the file, 1 to MAX_EPOCH: positions in it mean nothing in a file of another epoch."""
    epoch: int = connection.execute("SELECT epoch FROM iii_life").fetchone()[0]
    return epoch


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    add_checksum_function(connection)
    return connection


def _new_epoch() -> int:
    return secrets.randbelow(MAX_EPOCH) + 1


def _create(connection: sqlite3.Connection, schema: Schema) -> None:
    connection.executescript(
        f"BEGIN; {schema.create} {_LIFE} PRAGMA application_id = {schema.application_id};"
        f" PRAGMA user_version = {schema.version}; COMMIT;"
    )


def _create_file(path: Path, schema: Schema) -> None:
    if log_of(path).exists():
        raise Refusal(
            f"{path} is gone, and its log {log_of(path).name} is still there. Nothing was changed. Put the file back, "
            "or move the log away to start empty"
        )
    if mark_of(path).exists():
        sys.stderr.write(f"iii: {path} was deleted; a new, empty one is made\n")
        mark_of(path).unlink()
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


def examine(path: Path, schema: Schema | None = None) -> None:
    """Look at a closed file and its log, and change nothing. Refusal when it must not be used.

    Without a schema, any version of any store of ours passes.
    """
    if not path.is_file():
        raise refusal(path, "it is not a file")
    size = path.stat().st_size
    if size == 0:
        raise refusal(path, "it is empty")
    has_log = log_of(path).exists()
    # Read-only: closing any other connection would move a damaged log into the file, and remove it.
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        _check_identity(connection, path, schema)
        # A process that dies without closing leaves the log. If it is gone, acknowledged commits went with it.
        is_open = connection.execute("SELECT is_open FROM iii_life").fetchone()[0]
        if is_open and not has_log:
            raise refusal(path, f"its log {log_of(path).name} is missing, and the last commits with it")
        if is_open:
            _check_log(path)
        if size <= QUICK_CHECK_BYTES:
            check = "integrity_check" if size <= FULL_CHECK_BYTES else "quick_check"
            problem = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
            if problem != "ok":
                raise refusal(path, f"it is damaged: {problem}")
    finally:
        connection.close()


def _check_log(path: Path) -> None:
    """Refuse a log in which SQLite did not read everything that was acknowledged."""
    index = LogIndex(path.with_name(f"{path.name}-shm"))
    position = index.position()
    index.close()
    acknowledged = read_mark(mark_of(path))
    is_lost = acknowledged is not None and position.has_lost(acknowledged)
    if is_lost or has_later_commit(log_of(path), position):
        raise refusal(path, f"its log {log_of(path).name} is damaged, and acknowledged commits in it cannot be read")


def _open_file(name: Path, path: Path, schema: Schema) -> OpenFile:
    # Cleared before anything moves the log into the file: dying in between must not look as if the log were lost.
    mark = CommitMark(mark_of(path))
    connection = _connect(path)
    try:
        _configure(connection, path)
        for step in range(_pragma(connection, "user_version"), schema.version):
            connection.executescript(f"BEGIN; {schema.upgrades[step - 1]} PRAGMA user_version = {step + 1}; COMMIT;")
        _mark_open(connection)
        return OpenFile(connection, name, path, mark)
    except BaseException:
        connection.close()
        mark.close()
        raise


def _check_identity(connection: sqlite3.Connection, path: Path, schema: Schema | None) -> None:
    application_id = _pragma(connection, "application_id")
    if schema is None:
        if application_id >> 16 != OUR_APPLICATIONS:
            raise refusal(path, f"it belongs to another program (application id {application_id})")
        return
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
    # A log that one large commit has blown up shrinks with the next one that starts it anew.
    connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * PAGE_BYTES}")


def _mark_open(connection: sqlite3.Connection) -> None:
    names = [row[1] for row in connection.execute("PRAGMA table_info(iii_life)")]
    if "epoch" not in names:  # a file of an older version
        connection.execute("ALTER TABLE iii_life ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0")
    connection.execute("UPDATE iii_life SET is_open = 1, epoch = iif(epoch = 0, ?, epoch)", (_new_epoch(),))
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
