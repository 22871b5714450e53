"""An attempt's beginning and end in the database, and what a crash has left. SQL inside one transaction.

An attempt is written down before it is made, in the same commit as whatever made room for it: the enqueue of the
job, or the end of another. Free slots are the queue's concurrency less its running rows; there is no counter that
could leak. Only the attempt that a row names can end it: late results of older attempts change nothing.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import NamedTuple

import orjson

from iii.redaction import Redactor
from stdlib_workers.attempts import Outcome, Verdict
from stdlib_workers.queue import lanes
from stdlib_workers.queue.groups import promote_next
from stdlib_workers.queue.limits import NO_KEYS, JobKeys
from stdlib_workers.queue.model import Delivery, Queue, State
from stdlib_workers.queue.new_jobs import content_checksum
from stdlib_workers.queue.policy import MAX_INTERRUPTIONS, is_possible_poison, next_state
from stdlib_workers.queue.schema import BATCHED_MARK, CHECKSUM, CLAIMED_MARK, KEYS
from stdlib_workers.storage import CORRUPT, row_checksum

# Jobs that become due, or turn out to call a missing function, are moved so many at a time: no transaction is long.
BATCH = 256

_RETURNING = f"""
RETURNING seq, attempt, id, function_id, namespace, data, metadata, traceparent, baggage, grp, spent, interrupted,
          suspect, created, waits, {KEYS}, priority, {CHECKSUM}
"""
_CLAIM = f"""
UPDATE jobs SET state = 2, attempt = ifnull(attempt, 0) + 1, mark = mark + {CLAIMED_MARK}, started = ?, run = ?
WHERE seq = ? AND state = 0 {_RETURNING}
"""
_CLAIM_BEHIND = f"""
UPDATE jobs SET state = 2, attempt = ifnull(attempt, 0) + 1, batched = 1, mark = mark + {BATCHED_MARK},
                started = ?, run = ?
WHERE seq = ? AND state = 3 {_RETURNING}
"""
_DROP_TEXT = """
UPDATE jobs SET function_id = '?', namespace = NULL, traceparent = NULL, baggage = NULL, checksum = -1 WHERE seq = ?
"""
_MOVE = """
UPDATE jobs SET state = ?, due = ?, ended = ?, suspect = ?, spent = spent + ?, interrupted = interrupted + ?,
                attempt = attempt - ?, alone = max(alone, ?), batched = 0
WHERE seq = ? AND attempt = ? AND state = 2
"""

_redactor = Redactor()

# (namespace, function id)
Target = tuple[str | None, str]


class StartedJobs(NamedTuple):
    """What a transaction has started, and the time at which a job of the same queues becomes due, None for unknown."""

    deliveries: list[Delivery]
    due: int | None = None


def advance(
    connection: sqlite3.Connection, queue: Queue, run: str, now: int, missing: AbstractSet[Target] = frozenset()
) -> StartedJobs:
    """Start what can start. A queue with all slots taken needs no timer: the end of an attempt comes here again."""
    row = connection.execute(
        "SELECT paused, (SELECT count(*) FROM jobs WHERE queue = ?1 AND state = 2 AND batched = 0) "
        "FROM queues WHERE id = ?1",
        (queue.id,),
    ).fetchone()
    paused, running = row or (True, 0)  # a queue that has been removed starts nothing
    free = queue.config.concurrency - running
    if paused or free <= 0:
        return StartedJobs([])
    if queue.config.has_keys:
        return _advance_by_keys(connection, queue, run, now, missing, free)
    connection.execute(
        "UPDATE jobs SET state = 0 WHERE seq IN "
        "(SELECT seq FROM jobs WHERE queue = ? AND state = 1 AND due <= ? ORDER BY due LIMIT ?)",
        (queue.id, now, BATCH),
    )
    starting = _first_ready(connection, queue, free, missing)
    claimed = [_claim(connection, queue, seq, run, now) for seq in starting]
    deliveries = [delivery for delivery in claimed if delivery is not None]
    if len(deliveries) < len(starting):
        return StartedJobs(deliveries, now)  # some are damaged: there may be more to start in their place
    if len(deliveries) == free:
        return StartedJobs(deliveries)
    return StartedJobs(deliveries, _next_due(connection, queue))


def _next_due(connection: sqlite3.Connection, queue: Queue) -> int | None:
    statement = "SELECT min(due) FROM jobs WHERE queue = ? AND state = 1"
    return connection.execute(statement, (queue.id,)).fetchone()[0]  # type: ignore[no-any-return]


def _advance_by_keys(
    connection: sqlite3.Connection, queue: Queue, run: str, now: int, missing: AbstractSet[Target], free: int
) -> StartedJobs:
    """Start what can start one by one, as each start may close a key for the next."""
    due = "SELECT seq FROM jobs WHERE queue = ? AND state = 1 AND due <= ? ORDER BY due, seq LIMIT ?"
    for (seq,) in connection.execute(due, (queue.id, now, BATCH)).fetchall():
        lanes.enter(connection, queue, seq, now)
    lanes.wake(connection, queue, now, BATCH)
    deliveries: list[Delivery] = []
    looked_at = 0
    while len(deliveries) < free:
        first = _first_ready(connection, queue, 1, frozenset())
        if not first:
            dues = [_next_due(connection, queue), lanes.next_due(connection, queue)]
            return StartedJobs(deliveries, min((due for due in dues if due is not None), default=None))
        if looked_at == BATCH:
            return StartedJobs(deliveries, now)
        looked_at += 1
        row = lanes.find(connection, first[0])
        if missing and _target(connection, row.seq) in missing:
            connection.execute("UPDATE jobs SET state = 4, due = ? WHERE seq = ?", (now, row.seq))
            lanes.left(connection, queue, row, now)
        elif lanes.can_start(connection, queue, row, now):
            others = lanes.batch_of(connection, queue, row)
            delivery = _claim(connection, queue, row.seq, run, now)
            if delivery is None:
                lanes.left(connection, queue, row, now)
                continue
            if queue.config.batch is not None:
                claimed = [_claim(connection, queue, seq, run, now, _CLAIM_BEHIND) for seq in others]
                delivery = replace(delivery, batch=(delivery, *filter(None, claimed)))
            lanes.started(connection, queue, row, now)
            deliveries.append(delivery)
    return StartedJobs(deliveries)


def _target(connection: sqlite3.Connection, seq: int) -> Target | None:
    """Return what a job calls; None for a damaged text, which `_claim` finds."""
    try:
        row = connection.execute("SELECT namespace, function_id FROM jobs WHERE seq = ?", (seq,)).fetchone()
    except sqlite3.OperationalError as error:
        if "UTF-8" not in str(error):
            raise
        return None
    return row[0], row[1]


def _claim(
    connection: sqlite3.Connection, queue: Queue, seq: int, run: str, now: int, statement: str = _CLAIM
) -> Delivery | None:
    """Begin an attempt. A job that is damaged becomes a dead letter, and None is returned."""
    try:
        *fields, lane, ckey, tkey, fkey, dkey, priority, checksum = connection.execute(
            statement, (now, run, seq)
        ).fetchone()
        is_plain = lane is None and dkey is None
        keys = NO_KEYS if is_plain else JobKeys(lane, ckey, tkey, fkey, dkey)
        delivery = Delivery(fields[0], fields[1], queue, now, *fields[2:], keys)  # type: ignore[call-arg]
    except sqlite3.OperationalError as error:
        if "UTF-8" not in str(error):
            raise
        # A text that is none any more; it must not keep others from reading the row.
        connection.execute(_DROP_TEXT, (seq,))
        id, group, attempt = connection.execute("SELECT id, grp, attempt FROM jobs WHERE seq = ?", (seq,)).fetchone()
        _refuse_damaged(connection, queue, seq, f"job {id}", id, group, attempt, now)
        return None
    call = (delivery.function_id, delivery.namespace, delivery.traceparent, delivery.baggage, delivery.metadata)
    content = (delivery.id, queue.id, delivery.group, priority, *call, delivery.data)
    if (row_checksum(*content) if is_plain else content_checksum(*content, *keys[:-1])) == checksum:
        return delivery
    what = f"job {delivery.id} of {delivery.function_id}"
    _refuse_damaged(connection, queue, seq, what, delivery.id, delivery.group, delivery.attempt, now)
    return None


def _refuse_damaged(
    connection: sqlite3.Connection,
    queue: Queue,
    seq: int,
    what: str,
    id: str,
    group: str | None,
    attempt: int,
    now: int,
) -> None:
    """Make a job whose content is not what was sent a dead letter: nobody can say what it was to do."""
    text = f"{what} is damaged on the disk and was not run"
    sys.stderr.write(f"queue {queue.name}: {text}; it is a dead letter now\n")
    error = orjson.dumps({"code": CORRUPT, "message": text}).decode()
    connection.execute("UPDATE jobs SET state = 5, ended = ? WHERE seq = ?", (now, seq))
    _insert_failure(connection, id, attempt, now, now, error)
    connection.execute("UPDATE queues SET failed = failed + 1 WHERE id = ?", (queue.id,))
    promote_next(connection, queue, group, now)
    if queue.config.has_keys:
        lanes.heal(connection, queue)


def _first_ready(connection: sqlite3.Connection, queue: Queue, count: int, missing: AbstractSet[Target]) -> list[int]:
    """Return the `seq` of up to `count` jobs to start. Jobs of missing functions go into state HELD on the way."""
    ready = (
        f"SELECT seq, {'namespace, function_id' if missing else 'NULL, NULL'} FROM jobs "
        "WHERE queue = ? AND state = 0 AND suspect = 0 ORDER BY priority DESC, turn, seq LIMIT ?"
    )
    # Of the possible poison messages only the oldest, and none while another one runs in any queue. There are no more
    # running rows than slots: looking through them costs nothing.
    poison = connection.execute(
        "SELECT seq FROM jobs WHERE queue = ? AND state = 0 AND suspect = 1 ORDER BY seq LIMIT 1", (queue.id,)
    ).fetchone()
    if poison and connection.execute("SELECT 1 FROM jobs WHERE state = 2 AND suspect = 1").fetchone():
        poison = None
    while True:
        try:
            rows = connection.execute(ready, (queue.id, max(count, BATCH) if missing else count)).fetchall()
        except sqlite3.OperationalError as error:
            if "UTF-8" not in str(error):
                raise
            return _first_ready(connection, queue, count, frozenset())  # `_claim` finds which one is damaged
        held = [(seq,) for seq, *target in rows if tuple(target) in missing]
        startable = [*(poison or ()), *(seq for seq, *target in rows if tuple(target) not in missing)]
        connection.executemany("UPDATE jobs SET state = 4 WHERE seq = ? AND state = 0", held)
        if not held or len(startable) >= count:
            return startable[:count]


def settle(
    connection: sqlite3.Connection, delivery: Delivery, verdict: Verdict, now: int, noise: float
) -> State | None:
    """End an attempt. Returns the job's new state, None when it is done or the attempt is not its current one."""
    state, delay = next_state(delivery, verdict, noise)
    outcome, queue, fence = verdict.outcome, delivery.queue, (delivery.seq, delivery.attempt)
    # Where jobs have keys those have a say before it is READY.
    entry = State.DELAYED if state is State.READY and queue.config.has_keys else state
    if state is None:
        ended = connection.execute("DELETE FROM jobs WHERE seq = ? AND attempt = ? AND state = 2", fence)
    else:
        values = (
            *(entry, now + delay if delay else _now_again(queue, now), now if state is State.DEAD else None),
            is_possible_poison(delivery, verdict),
            outcome is Outcome.FAILED,
            outcome in (Outcome.INTERRUPTED, Outcome.SHARED_CRASH),
            outcome in (Outcome.RETURNED, Outcome.MISSING),
            outcome is Outcome.SHARED_FAILURE,
        )
        ended = connection.execute(_MOVE, (*values, *fence))
    if not ended.rowcount:
        connection.execute("UPDATE queues SET fenced = fenced + 1 WHERE id = ?", (queue.id,))
        return None
    if state is None:
        if delivery.attempt > 1:
            connection.execute("DELETE FROM failures WHERE job = ?", (delivery.id,))
        connection.execute("UPDATE queues SET done = done + 1 WHERE id = ?", (queue.id,))
    if outcome in (Outcome.FAILED, Outcome.INTERRUPTED, Outcome.SHARED_CRASH, Outcome.SHARED_FAILURE):
        # Errors quote what the handler had in its hands, and are listed to everybody who may see the queue.
        error = orjson.dumps(_redactor.value(verdict.error)).decode()
        _insert_failure(connection, delivery.id, delivery.attempt, delivery.started, now, error)
    if outcome is Outcome.FAILED:
        connection.execute("UPDATE queues SET failed = failed + 1 WHERE id = ?", (queue.id,))
    if state in (None, State.DEAD):
        promote_next(connection, queue, delivery.group, now)
    return state


def _now_again(queue: Queue, now: int) -> int:
    """Return when a job is due that is to go on at once: one that was in a batch has waited for it already."""
    return now if queue.config.batch is None else now - queue.config.batch.max_wait_ms


def _insert_failure(
    connection: sqlite3.Connection, job: str, attempt: int, started: int | None, ended: int, error: str
) -> None:
    fields = (job, attempt, started, ended, error)
    connection.execute("INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?)", (*fields, row_checksum(*fields)))


def recover(connection: sqlite3.Connection, queues: dict[int, Queue], now: int) -> int:
    """Give back what was running when the last process ended; returns how many jobs. No attempt is spent.

    A job that the disk has moved becomes a dead letter: where it stands now, nothing might ever look for it.
    """
    moved = f"SELECT seq, id, queue, attempt, grp FROM jobs WHERE state != 5 AND {CHECKSUM} IS NULL"
    for seq, job, queue, attempt, group in connection.execute(moved).fetchall():
        _refuse_damaged(connection, queues[queue], seq, f"job {job}", job, group, attempt, now)
    rows = connection.execute(
        "SELECT seq, id, queue, attempt, interrupted, started, grp FROM jobs WHERE state = 2"
    ).fetchall()
    error = orjson.dumps({"code": "interrupted", "message": "the engine or the queue worker ended meanwhile"}).decode()
    for seq, job, queue, attempt, interrupted, started, group in rows:
        again = State.DELAYED if queues[queue].config.has_keys else State.READY
        state = State.DEAD if interrupted + 1 >= MAX_INTERRUPTIONS else again
        connection.execute(
            "UPDATE jobs SET state = ?, due = min(due, ?), interrupted = interrupted + 1, ended = ?, batched = 0 "
            "WHERE seq = ?",
            (state, _now_again(queues[queue], now), now if state is State.DEAD else None, seq),
        )
        _insert_failure(connection, job, attempt, started, now, error)
        if state is State.DEAD:
            promote_next(connection, queues[queue], group, now)
    for each in queues.values():
        if each.config.has_keys:
            lanes.review_all(connection, each, now)
    return len(rows)


def release(connection: sqlite3.Connection, function_id: str, *, limit: int = BATCH) -> int:
    """Make jobs that wait for this function ready, oldest first; returns how many."""
    return connection.execute(
        "UPDATE jobs SET state = iif(lane IS NULL, 0, 1) WHERE seq IN "
        "(SELECT seq FROM jobs WHERE function_id = ? AND state = 4 ORDER BY seq LIMIT ?)",
        (function_id, limit),
    ).rowcount


def held_targets(connection: sqlite3.Connection) -> set[Target]:
    """Return the functions that jobs wait for."""
    return set(connection.execute("SELECT DISTINCT namespace, function_id FROM jobs WHERE state = 4"))
