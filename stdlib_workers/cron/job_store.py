"""What has been fired, on disk: one row a job.

`claim_tick` is the lease: it moves the last tick on only from where the caller saw it, so of several engines on one
store one fires. A tick whose run had not ended when its process did is fired once more, and only once.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from typing import NamedTuple

from stdlib_workers.cron.jobs import Decision, iso_utc
from stdlib_workers.storage import Pending, Schema, Store

# "iiiC".
SCHEMA = Schema(
    0x69696943,
    """
    CREATE TABLE jobs (
        key TEXT PRIMARY KEY, last TEXT NOT NULL, running TEXT, missed INTEGER NOT NULL DEFAULT 0,
        repeated INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    """,
)


class JobRecord(NamedTuple):
    """A job's row. `running` is the tick whose run has not ended, as far as the disk knows."""

    last: datetime
    running: datetime | None = None
    missed: int = 0


class SqliteJobStore:
    """The rows of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self, key: str, now: datetime) -> Pending[JobRecord]:
        """Return a job's row, made now if there is none. A run that did not end is returned the first time only."""

        def command(connection: sqlite3.Connection) -> JobRecord:
            connection.execute("INSERT INTO jobs (key, last) VALUES (?, ?) ON CONFLICT DO NOTHING", (key, iso_utc(now)))
            statement = "SELECT last, running, missed, repeated FROM jobs WHERE key = ?"
            last, running, missed, repeated = connection.execute(statement, (key,)).fetchone()
            if running is None or repeated:
                connection.execute("UPDATE jobs SET running = NULL, repeated = 0 WHERE key = ?", (key,))
                return JobRecord(_moment(last))
            connection.execute("UPDATE jobs SET repeated = 1 WHERE key = ?", (key,))
            return JobRecord(_moment(last), _moment(running), missed)

        return self._store.run(command)

    def claim_tick(self, key: str, seen: datetime, decision: Decision, *, fires: bool) -> Pending[bool]:
        """Deal with a tick, unless another engine has; returns whether the tick is the caller's."""
        last = iso_utc(decision.last)
        values: tuple[object, ...]
        if fires and decision.fire:
            statement = "UPDATE jobs SET last = ?, running = ?, missed = ?, repeated = 0 WHERE key = ? AND last = ?"
            values = (last, iso_utc(decision.fire), decision.missed, key, iso_utc(seen))
        else:
            statement = "UPDATE jobs SET last = ? WHERE key = ? AND last = ?"
            values = (last, key, iso_utc(seen))
        return self._store.run(lambda connection: bool(connection.execute(statement, values).rowcount))

    def mark_ended(self, key: str, tick: datetime) -> Pending[None]:
        """Note that the run of a tick has ended."""

        def command(connection: sqlite3.Connection) -> None:
            statement = "UPDATE jobs SET running = NULL, repeated = 0 WHERE key = ? AND running = ?"
            connection.execute(statement, (key, iso_utc(tick)))

        return self._store.run(command)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
