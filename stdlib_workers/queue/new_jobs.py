"""New jobs: one row each, written in the caller's transaction, and the keys that make an enqueue idempotent.

A job is durable when that transaction has been committed, and not before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import orjson

from stdlib_workers.queue.groups import entry_state
from stdlib_workers.queue.model import NewJob, Queue, State
from stdlib_workers.queue.schema import new_mark
from stdlib_workers.storage import check_row, row_checksum

# Jobs of one statement: more gain nothing, and each count is a statement of its own to prepare.
MAX_ROWS = 32

_CALL = "function_id, namespace, traceparent, baggage, metadata, data"
_COLUMNS = f"id, queue, state, priority, due, grp, created, {_CALL}, checksum, mark"
# The values of these columns, in their order.
JobRow = tuple[Any, ...]


class Content(NamedTuple):
    """What a job calls and with what, as it is stored; `checksum` as CHECKSUM reads it."""

    id: str
    queue: int
    grp: str | None
    priority: int
    function_id: str
    namespace: str | None
    traceparent: str | None
    baggage: str | None
    metadata: bytes | None
    data: bytes
    checksum: int | None

    @property
    def is_sound(self) -> bool:
        return row_checksum(*self[:-1]) == self.checksum

    def payload(self) -> Any:
        """Return the payload; None for a damaged row, whose payload may be one that nobody has sent."""
        return orjson.loads(self.data) if self.is_sound else None


def plain_row(queue: Queue, job: NewJob, now: int) -> JobRow:
    """Return the row of a job without key and group: it depends on nothing that is stored."""
    return _row(queue, job, State.DELAYED if job.delay_ms > 0 else State.READY, now)


def _row(queue: Queue, job: NewJob, state: State, now: int) -> JobRow:
    head = (job.id, queue.id, state, job.priority, now + job.delay_ms, job.group, now)
    call = (job.function_id, job.namespace, job.traceparent, job.baggage, job.metadata, job.data)
    checksum = row_checksum(job.id, queue.id, job.group, job.priority, *call)
    return (*head, *call, checksum, new_mark(state, now + job.delay_ms))


def enqueue(connection: sqlite3.Connection, queue: Queue, job: NewJob, now: int) -> str:
    """Take a job in and return its receipt: that of an earlier job, if its key or its id is known already."""
    if job.key is not None:
        statement = "SELECT job, expires, checksum FROM keys WHERE queue = ? AND key = ?"
        row = connection.execute(statement, (queue.id, job.key)).fetchone()
        if row is not None:
            check_row(f"the key {job.key!r} of queue {queue.name}", row[2], queue.id, job.key, *row[:2])
        # A job that still exists holds its key, however long it has waited.
        if row is not None and (
            row[1] > now or connection.execute("SELECT 1 FROM jobs WHERE id = ?", row[:1]).fetchone()
        ):
            return str(row[0])
        known = (queue.id, job.key, job.id, now + queue.config.key_window_ms)
        connection.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?) ON CONFLICT (queue, key) DO UPDATE SET job = excluded.job, "
            "expires = excluded.expires, checksum = excluded.checksum",
            (*known, row_checksum(*known)),
        )
    state = entry_state(connection, queue, job.group, due=now + job.delay_ms, now=now)
    insert(connection, [_row(queue, job, state, now)])
    return job.id


def insert(connection: sqlite3.Connection, jobs: Sequence[JobRow]) -> None:
    """Write new jobs, in their order; a job whose id is stored already changes nothing."""
    for start in range(0, len(jobs), MAX_ROWS):
        part = jobs[start : start + MAX_ROWS]
        connection.execute(_insert_statement(len(part)), [field for job in part for field in job])


@cache
def _insert_statement(rows: int) -> str:
    row = f"({', '.join('?' * len(_COLUMNS.split(', ')))})"
    return f"INSERT INTO jobs ({_COLUMNS}) VALUES {', '.join([row] * rows)} ON CONFLICT (id) DO NOTHING"


def forget_keys(connection: sqlite3.Connection, now: int, limit: int = 500) -> int:
    """Drop keys whose window is over and whose job is gone; returns how many."""
    return connection.execute(
        "DELETE FROM keys WHERE (queue, key) IN (SELECT queue, key FROM keys WHERE expires <= ? "
        "AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = keys.job) LIMIT ?)",
        (now, limit),
    ).rowcount
