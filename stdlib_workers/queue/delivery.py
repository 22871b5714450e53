"""Which jobs start now: the claim, the end of an attempt, and what a crash has left. SQL inside one transaction.

An attempt is written down before it is made, in the same commit as whatever made room for it: the enqueue of the
job, or the end of another. Free slots are the queue's concurrency less its running rows; there is no counter that
could leak. Only the attempt that a row names can end it: later results of older attempts change nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import orjson

from stdlib_workers.queue.intake import lead
from stdlib_workers.queue.model import Delivery, Kind, Queue, State, Verdict
from stdlib_workers.queue.policy import MAX_INTERRUPTIONS, is_suspect, next_state

# Jobs that become due, or turn out to call a missing function, are moved so many at a time: no transaction is long.
BATCH = 256

_CLAIM = """
UPDATE jobs SET state = 2, attempt = attempt + 1, started = ?, run = ? WHERE seq = ? AND state = 0
RETURNING seq, attempt, id, function_id, namespace, data, metadata, traceparent, baggage, grp, spent, interrupted,
          suspect, created
"""


# (namespace, function id)
Target = tuple[str | None, str]


class Moves(NamedTuple):
    """What follows from a transaction: attempts to make now, and when to look again (None: when something happens)."""

    deliveries: list[Delivery]
    due: int | None = None


def advance(
    connection: sqlite3.Connection, queue: Queue, run: str, now: int, missing: AbstractSet[Target] = frozenset()
) -> Moves:
    """Start what can start. A queue with all slots taken needs no timer: the end of an attempt looks again."""
    free = free_slots(connection, queue)
    if free <= 0:
        return Moves([])
    move_due(connection, queue, now)
    deliveries = [_claim(connection, queue, seq, run, now) for seq in _first_ready(connection, queue, free, missing)]
    if len(deliveries) == free:
        return Moves(deliveries)
    due = connection.execute("SELECT min(due) FROM jobs WHERE queue = ? AND state = 1", (queue.id,)).fetchone()[0]
    return Moves(deliveries, due)


def _claim(connection: sqlite3.Connection, queue: Queue, seq: int, run: str, now: int) -> Delivery:
    row = connection.execute(_CLAIM, (now, run, seq)).fetchone()
    return Delivery(row[0], row[1], queue, now, *row[2:])


def free_slots(connection: sqlite3.Connection, queue: Queue) -> int:
    """Return how many more jobs of the queue may run; 0 while it is paused, or when it has been removed."""
    found = connection.execute(
        "SELECT paused, (SELECT count(*) FROM jobs WHERE queue = ?1 AND state = 2) FROM queues WHERE id = ?1",
        (queue.id,),
    ).fetchone()
    paused, running = found or (True, 0)
    return 0 if paused else queue.config.concurrency - int(running)


def move_due(connection: sqlite3.Connection, queue: Queue, now: int) -> None:
    """Make jobs whose time has come ready."""
    connection.execute(
        "UPDATE jobs SET state = 0 WHERE seq IN "
        "(SELECT seq FROM jobs WHERE queue = ? AND state = 1 AND due <= ? ORDER BY due LIMIT ?)",
        (queue.id, now, BATCH),
    )


def _first_ready(connection: sqlite3.Connection, queue: Queue, count: int, missing: AbstractSet[Target]) -> list[int]:
    ready = (
        "SELECT seq, namespace, function_id FROM jobs WHERE queue = ? AND state = 0 AND suspect = 0 "
        "ORDER BY priority DESC, seq LIMIT ?"
    )
    suspects = _first_suspect(connection, queue)
    while True:
        rows = connection.execute(ready, (queue.id, max(count, BATCH) if missing else count)).fetchall()
        absent = [(seq,) for seq, *target in rows if tuple(target) in missing]
        found = suspects + [seq for seq, *target in rows if tuple(target) not in missing]
        # They step aside once, and cost nothing more until their function is there.
        connection.executemany("UPDATE jobs SET state = 4 WHERE seq = ? AND state = 0", absent)
        if not absent or len(found) >= count:
            return found[:count]


def _first_suspect(connection: sqlite3.Connection, queue: Queue) -> list[int]:
    suspect = "SELECT seq FROM jobs WHERE queue = ? AND state = 0 AND suspect = 1 ORDER BY seq LIMIT 1"
    found = connection.execute(suspect, (queue.id,)).fetchall()
    # There are no more running rows than slots: looking through them costs nothing.
    if not found or connection.execute("SELECT 1 FROM jobs WHERE state = 2 AND suspect = 1").fetchone():
        return []
    return [found[0][0]]


def settle(
    connection: sqlite3.Connection, delivery: Delivery, verdict: Verdict, now: int, noise: float
) -> State | None:
    """End an attempt. Returns the job's new state, None when it is done or the attempt is not its current one."""
    state, delay = next_state(delivery, verdict, noise)
    if state is None:
        applied = _finish(connection, delivery)
    else:
        applied = _move(connection, delivery, verdict, (state, now + delay, now if state is State.DEAD else None))
    if not applied:
        connection.execute("UPDATE queues SET fenced = fenced + 1 WHERE id = ?", (delivery.queue.id,))
        return None
    if verdict.kind in (Kind.FAILED, Kind.INTERRUPTED, Kind.SUSPECTED):
        _note_failure(connection, delivery, verdict, now)
    if state in (None, State.DEAD):
        lead(connection, delivery.queue, delivery.group, now)
    return state


def _finish(connection: sqlite3.Connection, delivery: Delivery) -> bool:
    fence = (delivery.seq, delivery.attempt)
    if not connection.execute("DELETE FROM jobs WHERE seq = ? AND attempt = ? AND state = 2", fence).rowcount:
        return False
    if delivery.attempt > 1:
        connection.execute("DELETE FROM failures WHERE job = ?", (delivery.id,))
    connection.execute("UPDATE queues SET done = done + 1 WHERE id = ?", (delivery.queue.id,))
    return True


def _move(
    connection: sqlite3.Connection, delivery: Delivery, verdict: Verdict, target: tuple[State, int, int | None]
) -> bool:
    """Move a running job to `target`: state, due, ended."""
    kind = verdict.kind
    interrupted = kind in (Kind.INTERRUPTED, Kind.SUSPECTED)
    never_started = kind in (Kind.RETURNED, Kind.MISSING)
    changes = (is_suspect(delivery, verdict), kind is Kind.FAILED, interrupted, never_started)
    statement = (
        "UPDATE jobs SET state = ?, due = ?, ended = ?, suspect = ?, spent = spent + ?, interrupted = interrupted + ?, "
        "attempt = attempt - ? WHERE seq = ? AND attempt = ? AND state = 2"
    )
    return bool(connection.execute(statement, (*target, *changes, delivery.seq, delivery.attempt)).rowcount)


def _note_failure(connection: sqlite3.Connection, delivery: Delivery, verdict: Verdict, now: int) -> None:
    connection.execute(
        "INSERT INTO failures VALUES (?, ?, ?, ?, ?)",
        (delivery.id, delivery.attempt, delivery.started, now, orjson.dumps(verdict.error).decode()),
    )
    if verdict.kind is Kind.FAILED:
        connection.execute("UPDATE queues SET failed = failed + 1 WHERE id = ?", (delivery.queue.id,))


def recover(connection: sqlite3.Connection, queues: dict[int, Queue], now: int) -> int:
    """Give back what was running when the last process ended; returns how many jobs. No attempt is spent."""
    rows = connection.execute(
        "SELECT seq, id, queue, attempt, interrupted, started, grp FROM jobs WHERE state = 2"
    ).fetchall()
    error = orjson.dumps({"code": "interrupted", "message": "the engine or the queue worker ended meanwhile"}).decode()
    for seq, job, queue, attempt, interrupted, started, group in rows:
        state = State.DEAD if interrupted + 1 >= MAX_INTERRUPTIONS else State.READY
        connection.execute(
            "UPDATE jobs SET state = ?, interrupted = interrupted + 1, ended = ? WHERE seq = ?",
            (state, now if state is State.DEAD else None, seq),
        )
        connection.execute("INSERT INTO failures VALUES (?, ?, ?, ?, ?)", (job, attempt, started, now, error))
        if state is State.DEAD:
            lead(connection, queues[queue], group, now)
    return len(rows)


def release(connection: sqlite3.Connection, function_id: str, *, limit: int = BATCH) -> int:
    """Make jobs that wait for this function ready, oldest first; returns how many."""
    return connection.execute(
        "UPDATE jobs SET state = 0 WHERE seq IN "
        "(SELECT seq FROM jobs WHERE function_id = ? AND state = 4 ORDER BY seq LIMIT ?)",
        (function_id, limit),
    ).rowcount


def held_targets(connection: sqlite3.Connection) -> set[Target]:
    """Return the functions that jobs wait for."""
    return set(connection.execute("SELECT DISTINCT namespace, function_id FROM jobs WHERE state = 4"))
