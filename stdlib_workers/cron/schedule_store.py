"""The rows of schedules that are made at run time: one for each id, found by id and by the time at which it is due.

A row whose `tick` is set has a run under way: what is called, is on disk before the call. Without `due` this process
makes that run, so a row that is found so at the start is one whose run did not end, and fires the same tick again.
"""

from __future__ import annotations

import sqlite3
import sys
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from iii import InvocationError
from stdlib_workers.cron.schedules import Schedule, row_of
from stdlib_workers.storage import Pending, Store, check_row, row_checksum

TABLE = """
    CREATE TABLE schedules (
        id TEXT PRIMARY KEY, function_id TEXT NOT NULL, spec BLOB NOT NULL, last INTEGER NOT NULL, due INTEGER,
        tick INTEGER, missed INTEGER NOT NULL, tries INTEGER NOT NULL, checksum INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX schedules_due ON schedules (due) WHERE due IS NOT NULL;
    CREATE INDEX schedules_of ON schedules (function_id, id);
    CREATE INDEX schedules_under_way ON schedules (id) WHERE tick IS NOT NULL;
"""
_COLUMNS = "id, function_id, spec, last, due, tick, missed, tries"
_SELECT = f"SELECT {_COLUMNS}, checksum FROM schedules"


class Row(NamedTuple):
    """One schedule: `last` is the tick that was dealt with last, `tick` the one whose run has not ended."""

    id: str
    function_id: str
    spec: bytes
    last: int
    due: int | None
    tick: int | None = None
    missed: int = 0
    tries: int = 0

    @property
    def schedule(self) -> Schedule:
        return Schedule(**orjson.loads(self.spec))


class Claimed(NamedTuple):
    """Runs to make, and when the next is due, None for never."""

    rows: list[Row]
    due: int | None


class ScheduleStore:
    """The schedules of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def recover(self, now: int) -> Pending[int]:
        """Make the runs due that the last process has left; returns how many."""

        def command(connection: sqlite3.Connection) -> int:
            rows = [Row(*fields[:-1]) for fields in connection.execute(f"{_SELECT} WHERE tick IS NOT NULL").fetchall()]
            for row in rows:
                if row.due is None:
                    _write(connection, row._replace(due=now))
            return len(rows)

        return self._store.run(command)

    def put(self, schedule: Schedule, now: int) -> Pending[tuple[int | None, bool]]:
        """Make a schedule, or change the one of its id; returns when it fires next, and whether anything has changed.

        A run that is under way goes on.
        """

        def command(connection: sqlite3.Connection) -> tuple[int | None, bool]:
            found = connection.execute(f"{_SELECT} WHERE id = ?", (schedule.id,)).fetchone()
            if found is not None and _is_sound(found):
                row = Row(*found[:-1])
                existing = row.schedule
                if existing == replace(schedule, made=existing.made):
                    return (row.due if row.tick is None else existing.next_tick(now)), False
            last = now if schedule.at is None else min(now, schedule.at - 1)
            due = schedule.next_tick(last)
            _write(connection, Row(schedule.id, schedule.function_id, orjson.dumps(schedule), last, due))
            return due, True

        return self._store.run(command)

    def remove(self, id: str) -> Pending[bool]:
        """Forget a schedule; False when there is none. A run that is under way goes on."""
        return self._store.run(
            lambda connection: bool(connection.execute("DELETE FROM schedules WHERE id = ?", (id,)).rowcount)
        )

    def page(
        self, after: str, limit: int, now: int, *, prefix: str = "", function_id: str | None = None
    ) -> Pending[list[dict[str, Any]]]:
        """Return up to `limit` schedules behind the id `after`, in the order of their ids."""
        condition = "id > ? AND id >= ? AND id < ?"
        values: list[Any] = [after, prefix, prefix + "\U0010ffff"]
        if function_id is not None:
            condition += " AND function_id = ?"
            values.append(function_id)

        def command(connection: sqlite3.Connection) -> list[dict[str, Any]]:
            found = connection.execute(f"{_SELECT} WHERE {condition} ORDER BY id LIMIT ?", (*values, limit)).fetchall()
            for fields in found:
                check_row(f"the schedule {fields[0]}", fields[-1], *fields[:-1])
            rows = [Row(*fields[:-1]) for fields in found]
            return [row_of(row.schedule, row.due, row.tick, now) for row in rows]

        return self._store.run(command)

    def claim(self, now: int, began: int, limit: int) -> Pending[Claimed]:
        """Deal with up to `limit` schedules that are due. Damaged ones are named, and left where nothing finds them."""

        def command(connection: sqlite3.Connection) -> Claimed:
            claimed = []
            due = f"{_SELECT} WHERE due <= ? ORDER BY due LIMIT ?"
            for fields in connection.execute(due, (now, limit)).fetchall():
                if not _is_sound(fields):
                    sys.stderr.write(
                        f"the schedule {fields[0]} is damaged on the disk and does not fire; make it anew\n"
                    )
                    connection.execute("UPDATE schedules SET due = NULL WHERE id = ?", (fields[0],))
                    continue
                row = _dealt_with(Row(*fields[:-1]), now, began)
                _write(connection, row)
                if row.tick is not None:
                    claimed.append(row)
            following = connection.execute("SELECT min(due) FROM schedules WHERE due IS NOT NULL").fetchone()[0]
            return Claimed(claimed, following)

        return self._store.run(command)

    def end(self, row: Row, *, again_at: int | None = None) -> Pending[int | None]:
        """Note that a run has ended, or that it is to be made again; returns when the schedule is due next."""

        def command(connection: sqlite3.Connection) -> int | None:
            found = connection.execute(f"{_SELECT} WHERE id = ? AND tick = ?", (row.id, row.tick)).fetchone()
            if found is None or not _is_sound(found) or found[2] != row.spec:
                return None  # changed or removed meanwhile
            stored = Row(*found[:-1])
            if again_at is not None:
                stored = stored._replace(due=again_at, tries=stored.tries + 1)
            else:
                stored = stored._replace(tick=None, missed=0, tries=0, due=stored.schedule.next_tick(stored.last))
            if stored.due is None:
                connection.execute("DELETE FROM schedules WHERE id = ?", (row.id,))
            else:
                _write(connection, stored)
            return stored.due

        return self._store.run(command)


def _dealt_with(row: Row, now: int, began: int) -> Row:
    """Return a row that is due, with its run under way if there is one to make."""
    if row.tick is not None:
        return row._replace(due=None)
    schedule = row.schedule
    fires = schedule.due(row.last, now, began)
    if fires is None:
        return row._replace(last=now, due=schedule.next_tick(now))
    tick, missed = fires
    return row._replace(last=max(tick, row.last), due=None, tick=tick, missed=missed)


def _is_sound(fields: tuple[Any, ...]) -> bool:
    try:
        check_row("", fields[-1], *fields[:-1])
    except InvocationError:
        return False
    return True


def _write(connection: sqlite3.Connection, row: Row) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, row_checksum(*row))
    )
