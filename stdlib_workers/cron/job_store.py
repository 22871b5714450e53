"""What has been fired, on disk: one row a job.

`claim_tick` is the lease: it moves the last tick on only from where the caller saw it, so of several engines on one
store one fires. A tick whose run had not ended when its process did is fired once more, and only once.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import NamedTuple

from iii import InvocationError
from stdlib_workers.cron.jobs import Decision, iso_utc
from stdlib_workers.cron.schedule_store import TABLE
from stdlib_workers.storage import Pending, Schema, Store, check_row, row_checksum

# "iiiC".
SCHEMA = Schema(
    0x69696943,
    f"""
    CREATE TABLE jobs (
        key TEXT PRIMARY KEY, last TEXT NOT NULL, running TEXT, missed INTEGER NOT NULL DEFAULT 0,
        repeated INTEGER NOT NULL DEFAULT 0, checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    {TABLE}
    """,
    (
        "ALTER TABLE jobs ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0; "
        "UPDATE jobs SET checksum = row_checksum(key, last, running, missed, repeated);",
        TABLE,
    ),
)
_READ = "SELECT last, running, missed, repeated, checksum FROM jobs WHERE key = ?"
_WRITE = "INSERT OR REPLACE INTO jobs (last, running, missed, repeated, key, checksum) VALUES (?, ?, ?, ?, ?, ?)"


class JobRecord(NamedTuple):
    """A job's row. `running` is the tick whose run has not ended, as far as the disk knows.

    `damage` says why the row that was there could not be used; then this is a new one.
    """

    last: datetime
    running: datetime | None = None
    missed: int = 0
    damage: str = ""


class _Row(NamedTuple):
    """A job's row as it is stored, without key and checksum."""

    last: str
    running: str | None = None
    missed: int = 0
    repeated: int = 0


class SqliteJobStore:
    """The rows of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self, key: str, now: datetime) -> Pending[JobRecord]:
        """Return a job's row, made now if there is none. A run that did not end is returned the first time only."""

        def command(connection: sqlite3.Connection) -> JobRecord:
            try:
                row = _read(connection, key)
            except InvocationError as error:
                _write(connection, key, _Row(iso_utc(now)))
                return JobRecord(now, damage=error.message)
            if row is None or row.running is None or row.repeated:
                row = _Row(iso_utc(now) if row is None else row.last)
                _write(connection, key, row)
                return JobRecord(_moment(row.last))
            _write(connection, key, row._replace(repeated=1))
            return JobRecord(_moment(row.last), _moment(row.running), row.missed)

        return self._store.run(command)

    def claim_tick(self, key: str, seen: datetime, decision: Decision, *, fires: bool) -> Pending[bool]:
        """Deal with a tick, unless another engine has; returns whether the tick is the caller's."""

        def command(connection: sqlite3.Connection) -> bool:
            row = _read(connection, key)
            if row is None or row.last != iso_utc(seen):
                return False
            last = iso_utc(decision.last)
            if fires and decision.fire:
                _write(connection, key, _Row(last, iso_utc(decision.fire), decision.missed))
            else:
                _write(connection, key, row._replace(last=last))
            return True

        return self._store.run(command)

    def mark_ended(self, key: str, tick: datetime) -> Pending[None]:
        """Note that the run of a tick has ended."""

        def command(connection: sqlite3.Connection) -> None:
            row = _read(connection, key)
            if row is not None and row.running == iso_utc(tick):
                _write(connection, key, row._replace(running=None, repeated=0))

        return self._store.run(command)


def _read(connection: sqlite3.Connection, key: str) -> _Row | None:
    """Return a job's row, None without one. InvocationError `storage_corrupt` for a damaged one."""
    fields = connection.execute(_READ, (key,)).fetchone()
    if fields is None:
        return None
    *values, checksum = fields
    check_row(f"the record of the cron job {key}", checksum, key, *values)
    return _Row(*values)


def _write(connection: sqlite3.Connection, key: str, row: _Row) -> None:
    connection.execute(_WRITE, (*row, key, row_checksum(key, *row)))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
