"""Jobs come in: one row each, in the caller's transaction. Called by `broker` through the storage thread.

A job that is taken in is durable when that transaction has been committed, and not before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from stdlib_workers.queue.model import NewJob, Queue, State

# Jobs of one statement: more gain nothing, and each count is a statement of its own to prepare.
MAX_ROWS = 32

_COLUMNS = "id, queue, state, priority, due, grp, created, function_id, namespace, traceparent, baggage, metadata, data"


class Placed(NamedTuple):
    """A row of `jobs` as a new one begins: the fields of `_COLUMNS`."""

    id: str
    queue: int
    state: int
    priority: int
    due: int
    group: str | None
    created: int
    function_id: str
    namespace: str | None
    traceparent: str | None
    baggage: str | None
    metadata: bytes | None
    data: bytes


def is_plain(job: NewJob) -> bool:
    """Whether nothing that is stored decides about a job: it has neither a key nor a group."""
    return job.key is None and job.group is None


def placed(queue: Queue, job: NewJob, state: int, now: int) -> Placed:
    """Return the row of a job."""
    due = now + job.delay_ms
    head = (job.id, queue.id, state, job.priority, due, job.group, now)
    return Placed(*head, job.function_id, job.namespace, job.traceparent, job.baggage, job.metadata, job.data)


def plain(queue: Queue, job: NewJob, now: int) -> Placed:
    """Return the row of a plain job."""
    return placed(queue, job, State.DELAYED if job.delay_ms > 0 else State.READY, now)


def enqueue(connection: sqlite3.Connection, queue: Queue, job: NewJob, now: int) -> str:
    """Take a job in and return its receipt: an earlier job's, if its key or its id is known already."""
    if job.key is not None:
        earlier = _earlier(connection, queue, job.key, now)
        if earlier is not None:
            return earlier
        _note_key(connection, queue, job, now)
    state = entry_state(connection, queue, job.group, due=now + job.delay_ms, now=now)
    insert(connection, [placed(queue, job, state, now)])
    return job.id


def insert(connection: sqlite3.Connection, jobs: Sequence[Placed]) -> None:
    """Write new jobs, in their order; one whose id is there already changes nothing."""
    for start in range(0, len(jobs), MAX_ROWS):
        part = jobs[start : start + MAX_ROWS]
        connection.execute(_insert(len(part)), [field for job in part for field in job])


@cache
def _insert(rows: int) -> str:
    row = f"({', '.join('?' * len(Placed._fields))})"
    return f"INSERT INTO jobs ({_COLUMNS}) VALUES {', '.join([row] * rows)} ON CONFLICT (id) DO NOTHING"


def entry_state(connection: sqlite3.Connection, queue: Queue, group: str | None, *, due: int, now: int) -> int:
    """Return the state in which a job joins the end of its group, or the queue."""
    if group is not None and _has_head(connection, queue, group):
        return State.BEHIND
    return State.DELAYED if due > now else State.READY


def _has_head(connection: sqlite3.Connection, queue: Queue, group: str) -> bool:
    live = "SELECT 1 FROM jobs WHERE queue = ? AND grp = ? AND state IN (0, 1, 2, 4) AND grp IS NOT NULL"
    if connection.execute(live, (queue.id, group)).fetchone():
        return True
    return queue.blocks and has_dead_head(connection, queue, group)


def has_dead_head(connection: sqlite3.Connection, queue: Queue, group: str) -> bool:
    """Whether a dead job of the group is there: with `on_dead_letter = "block"` nothing passes it."""
    dead = "SELECT 1 FROM jobs WHERE queue = ? AND grp = ? AND state = 5 AND grp IS NOT NULL"
    return connection.execute(dead, (queue.id, group)).fetchone() is not None


def lead(connection: sqlite3.Connection, queue: Queue, group: str | None, now: int) -> None:
    """Make the first job that waits behind a head that is gone the head of its group."""
    if group is None or (queue.blocks and has_dead_head(connection, queue, group)):
        return
    first = "SELECT seq, due FROM jobs WHERE queue = ? AND grp = ? AND state = 3 ORDER BY seq LIMIT 1"
    row = connection.execute(first, (queue.id, group)).fetchone()
    if row is not None:
        state = State.DELAYED if row[1] > now else State.READY
        connection.execute("UPDATE jobs SET state = ? WHERE seq = ? AND state = 3", (state, row[0]))


def _earlier(connection: sqlite3.Connection, queue: Queue, key: str, now: int) -> str | None:
    row = connection.execute("SELECT job, expires FROM keys WHERE queue = ? AND key = ?", (queue.id, key)).fetchone()
    if row is None:
        return None
    # A job that still exists holds its key, however long it has waited.
    if row[1] > now or connection.execute("SELECT 1 FROM jobs WHERE id = ?", (row[0],)).fetchone():
        return str(row[0])
    return None


def _note_key(connection: sqlite3.Connection, queue: Queue, job: NewJob, now: int) -> None:
    connection.execute(
        "INSERT INTO keys VALUES (?, ?, ?, ?) ON CONFLICT (queue, key) DO UPDATE SET job = excluded.job, "
        "expires = excluded.expires",
        (queue.id, job.key, job.id, now + queue.config.key_window_ms),
    )


def forget_keys(connection: sqlite3.Connection, now: int, limit: int = 500) -> int:
    """Drop keys whose window is over and whose job is gone; returns how many."""
    return connection.execute(
        "DELETE FROM keys WHERE (queue, key) IN (SELECT queue, key FROM keys WHERE expires <= ? "
        "AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = keys.job) LIMIT ?)",
        (now, limit),
    ).rowcount
