"""New jobs: one row each, written in the caller's transaction, and the keys that make an enqueue idempotent.

A job is durable when that transaction has been committed, and not before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import orjson

from iii import InvocationError
from stdlib_workers.queue import lanes
from stdlib_workers.queue.groups import entry_state
from stdlib_workers.queue.limits import MAX_DEBOUNCED, NO_KEYS, debounce_due, rate_wait_ms
from stdlib_workers.queue.model import NewJob, Queue, State
from stdlib_workers.queue.schema import CHECKSUM, CONTENT, KEYS, new_mark
from stdlib_workers.storage import check_row, row_checksum

ENQUEUE_ERROR = "enqueue_error"
# Jobs of one statement: more gain nothing, and each count is a statement of its own to prepare.
MAX_ROWS = 32

_CALL = "function_id, namespace, traceparent, baggage, metadata, data"
_COLUMNS = f"id, queue, state, priority, due, grp, created, {_CALL}, checksum, mark"
# Of a job that has keys, or whose caller waits.
_ALL_COLUMNS = f"{_COLUMNS}, waits, {KEYS}"
_KEY_COUNT = len(KEYS.split(", "))
_NO_KEYS = NO_KEYS[:_KEY_COUNT]
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
    lane: str | None
    ckey: str | None
    tkey: str | None
    fkey: str | None
    dkey: str | None
    checksum: int | None

    @property
    def is_sound(self) -> bool:
        return content_checksum(*self[:-1]) == self.checksum

    def payload(self) -> Any:
        """Return the payload; None for a damaged row, whose payload may be one that nobody has sent."""
        return orjson.loads(self.data) if self.is_sound else None


def content_checksum(*fields: Any) -> int:
    """Return the checksum of a job's content. That of a job without keys does not cover them."""
    return row_checksum(*fields[:-_KEY_COUNT]) if fields[-_KEY_COUNT:] == _NO_KEYS else row_checksum(*fields)


def plain_row(queue: Queue, job: NewJob, now: int) -> JobRow:
    """Return the row of a job of a plain queue without key and group: it depends on nothing that is stored."""
    return _row(queue, job, State.DELAYED if job.delay_ms > 0 else State.READY, now, now + job.delay_ms)


def _row(queue: Queue, job: NewJob, state: State, now: int, due: int) -> JobRow:
    head = (job.id, queue.id, state, job.priority, due, job.group, now)
    call = (job.function_id, job.namespace, job.traceparent, job.baggage, job.metadata, job.data)
    content = (job.id, queue.id, job.group, job.priority, *call)
    has_keys = job.keys is not NO_KEYS
    checksum = content_checksum(*content, *job.keys[:_KEY_COUNT]) if has_keys else row_checksum(*content)
    return (*head, *call, checksum, new_mark(state, due, waits=job.waits))


def enqueue(connection: sqlite3.Connection, queue: Queue, job: NewJob, now: int) -> str:
    """Take a job in and return its receipt: that of an earlier job, if its key or its id is known already.

    InvocationError `enqueue_error` when the queue's rate limit is reached.
    """
    if job.key is not None and (known := _job_of_key(connection, queue, job.key, now)) is not None:
        return known
    if not queue.config.is_plain and connection.execute("SELECT 1 FROM jobs WHERE id = ?", (job.id,)).fetchone():
        return job.id
    if job.keys.rate is not None:
        _accept(connection, queue, job.keys.rate, now)
    waiting = None if job.keys.debounce is None else _waiting_job(connection, queue, job)
    if job.key is not None:
        row = (queue.id, job.key, waiting.id if waiting else job.id, now + queue.config.key_window_ms)
        connection.execute(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?) ON CONFLICT (queue, key) DO UPDATE SET job = excluded.job, "
            "expires = excluded.expires, checksum = excluded.checksum",
            (*row, row_checksum(*row)),
        )
    if job.keys.debounce is not None:
        return _debounce(connection, queue, job, waiting, now)
    state = entry_state(connection, queue, job.group, due=now + job.delay_ms, now=now)
    _insert_one(connection, queue, job, state, now)
    return job.id


def _job_of_key(connection: sqlite3.Connection, queue: Queue, key: str, now: int) -> str | None:
    """Return the job that has this idempotency key."""
    statement = "SELECT job, expires, checksum FROM keys WHERE queue = ? AND key = ?"
    row = connection.execute(statement, (queue.id, key)).fetchone()
    if row is None:
        return None
    job, expires, checksum = row
    check_row(f"the key {key!r} of queue {queue.name}", checksum, queue.id, key, job, expires)
    # A job that still exists holds its key, however long it has waited.
    if expires > now or connection.execute("SELECT 1 FROM jobs WHERE id = ?", (job,)).fetchone():
        return str(job)
    return None


def _accept(connection: sqlite3.Connection, queue: Queue, key: str, now: int) -> None:
    """Count a job against its rate limit, by the times of those that were accepted before it."""
    rate = queue.config.rate_limit
    if rate is None:
        return
    last = connection.execute("SELECT max(number) FROM accepted WHERE queue = ? AND key = ?", (queue.id, key))
    number = (last.fetchone()[0] or 0) + 1
    row = connection.execute(
        "SELECT at, expires, checksum FROM accepted WHERE queue = ? AND key = ? AND number = ?",
        (queue.id, key, number - rate.limit),
    ).fetchone()
    earlier = row and row[0]
    if row is not None and row_checksum(queue.id, key, number - rate.limit, *row[:2]) != row[2]:
        earlier = now  # damaged: as late as it can have been
    wait = rate_wait_ms(rate, earlier, now)
    if wait:
        whose = f" for {rate.field} {key}" if rate.field is not None else ""
        raise refused(
            "rate_limited",
            f"queue {queue.name} accepts {rate.limit} jobs in {rate.period_ms} ms{whose}; try again in {wait} ms",
            retry_after_ms=wait,
        )
    accepted = (queue.id, key, number, now, now + rate.period_ms + 1)
    connection.execute("INSERT INTO accepted VALUES (?, ?, ?, ?, ?, ?)", (*accepted, row_checksum(*accepted)))
    connection.execute(
        "DELETE FROM accepted WHERE queue = ? AND key = ? AND number <= ?", (queue.id, key, number - rate.limit)
    )


class _Waiting(NamedTuple):
    """A debounced job that has not run yet."""

    id: str
    seq: int
    state: State
    due: int
    created: int
    waits: int
    data: bytes


def _waiting_job(connection: sqlite3.Connection, queue: Queue, job: NewJob) -> _Waiting | None:
    """Return the job whose place a new one takes, None if the key has none that waits, or that one is damaged."""
    row = connection.execute(
        f"SELECT id, seq, state, due, created, waits, data, {CONTENT['jobs']}, {CHECKSUM} FROM jobs WHERE queue = ? "
        "AND dkey = ? AND dkey IS NOT NULL AND attempt = 0 AND state NOT IN (2, 5) ORDER BY seq DESC LIMIT 1",
        (queue.id, job.keys.debounce),
    ).fetchone()
    if row is None or not Content(*row[7:]).is_sound:
        return None
    return _Waiting(row[0], row[1], State(row[2]), *row[3:7])


def _debounce(connection: sqlite3.Connection, queue: Queue, job: NewJob, waiting: _Waiting | None, now: int) -> str:
    """Let a job take the place of the one that waits, under that one's receipt, or be the one that waits."""
    debounce = queue.config.debounce
    assert debounce is not None, "only such a queue gives jobs these keys"
    keeps_all = debounce.keep == "all"
    if waiting is not None and keeps_all and len(waiting.data) + len(job.data) > MAX_DEBOUNCED:
        if waiting.state is State.DELAYED:
            connection.execute("UPDATE jobs SET due = ? WHERE seq = ?", (now, waiting.seq))
        waiting = None
    data = job.data
    if keeps_all:
        data = b"[%s]" % job.data if waiting is None else b"%s,%s]" % (waiting.data[:-1], job.data)
    if waiting is None:
        job = replace(job, data=data, delay_ms=debounce_due(debounce, now, now) - now)
        _insert_one(connection, queue, job, State.DELAYED, now)
        return job.id
    row = lanes.find(connection, waiting.seq)
    connection.execute("DELETE FROM jobs WHERE seq = ?", (waiting.seq,))
    lanes.left(connection, queue, row, now)
    due = debounce_due(debounce, waiting.created, now) if waiting.state is State.DELAYED else now
    job = replace(job, id=waiting.id, data=data, delay_ms=max(0, due - now), waits=bool(job.waits or waiting.waits))
    _insert_one(connection, queue, job, State.DELAYED, now, seq=waiting.seq, created=waiting.created)
    return waiting.id


def _insert_one(
    connection: sqlite3.Connection,
    queue: Queue,
    job: NewJob,
    state: State,
    now: int,
    *,
    seq: int | None = None,
    created: int | None = None,
) -> None:
    row = _row(queue, job, state, now, now + job.delay_ms)
    if queue.config.is_plain and not queue.config.has_keys and not job.waits:
        insert(connection, [row])
        return
    row = (*row, job.waits, *job.keys[:_KEY_COUNT])
    marks = ", ".join("?" * (len(row) + 1))
    statement = f"INSERT INTO jobs ({_ALL_COLUMNS}, seq) VALUES ({marks}) ON CONFLICT (id) DO NOTHING RETURNING seq"
    inserted = connection.execute(statement, (*row, seq)).fetchone()
    if created is not None:
        connection.execute("UPDATE jobs SET created = ? WHERE seq = ?", (created, seq))
    if inserted is not None and queue.config.has_keys and state is State.DELAYED and job.delay_ms <= 0:
        lanes.enter(connection, queue, inserted[0], now)


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


def refused(reason: str, message: str, **details: Any) -> InvocationError:
    """Return the error of an enqueue: one code on the wire, the reason in its details."""
    return InvocationError(ENQUEUE_ERROR, f"{reason}: {message}", details={"reason": reason, **details})
