"""What an operator asks of a queue: counts, peek, cancel, purge, and its dead letters. SQL in one transaction.

Every count is a count of rows at this moment. Dead letters are the rows of `jobs` in state DEAD, with the errors of
every attempt: list, count and redrive read the same rows, so they cannot disagree.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from stdlib_workers.queue.groups import entry_state, promote_if_headless, promote_next
from stdlib_workers.queue.model import Queue, State

_OF_STATE = "(SELECT count(*) FROM jobs WHERE queue = ?1 AND state = {})"
_COUNTS = (
    f"SELECT {', '.join(_OF_STATE.format(int(state)) for state in State)}, done, failed, fenced, paused "
    "FROM queues WHERE id = ?1"
)

_LETTER = (
    "SELECT jobs.id, data, ended, attempt, spent, interrupted, grp, traceparent, jobs.function_id, created, "
    "queues.name FROM jobs JOIN queues ON queues.id = jobs.queue WHERE state = 5"
)
_KEPT = "id, queue, priority, grp, attempt, function_id, namespace, traceparent, baggage, metadata, data"


def counts(connection: sqlite3.Connection, queue: Queue) -> dict[str, Any]:
    """Return a queue's figures. `depth` is everything accepted that is neither done nor dead."""
    row = connection.execute(_COUNTS, (queue.id,)).fetchone()
    ready, delayed, running, behind, held, dead, done, failed, fenced, paused = row  # in the order of State
    return {
        "depth": ready + delayed + running + behind + held,
        "ready": ready,
        "delayed": delayed,
        "running": running,
        "behind": behind,
        "held": held,
        "dlq_depth": dead,
        "delivered": done,
        "failed": failed,
        "fenced": fenced,
        "paused": bool(paused),
    }


def peek(connection: sqlite3.Connection, queue: Queue, offset: int, limit: int) -> list[dict[str, Any]]:
    """Return live jobs in the order in which they came."""
    rows = connection.execute(
        "SELECT id, function_id, namespace, state, priority, due, grp, attempt, spent, created, started, data "
        "FROM jobs WHERE queue = ? AND state != 5 ORDER BY seq LIMIT ? OFFSET ?",
        (queue.id, limit, offset),
    )
    return [
        {
            "id": row[0],
            "function_id": row[1],
            "namespace": row[2],
            "state": State(row[3]).name.lower(),
            "priority": row[4],
            "due_at": row[5],
            "group": row[6],
            "attempt": row[7],
            "failures": row[8],
            "enqueued_at": row[9],
            "started_at": row[10],
            "payload": orjson.loads(row[11]),
        }
        for row in rows
    ]


def find_job(connection: sqlite3.Connection, job: str) -> tuple[int, State] | None:
    """Return the id of the queue that holds a job, and the job's state."""
    row = connection.execute("SELECT queue, state FROM jobs WHERE id = ?", (job,)).fetchone()
    return None if row is None else (row[0], State(row[1]))


def cancel(connection: sqlite3.Connection, queue: Queue, job: str, now: int) -> bool:
    """Remove a job that waits; False when it runs, is dead, or is gone."""
    row = connection.execute(
        "DELETE FROM jobs WHERE id = ? AND state IN (0, 1, 3, 4) RETURNING state, grp", (job,)
    ).fetchone()
    if row is None:
        return False
    connection.execute("DELETE FROM failures WHERE job = ?", (job,))
    if row[0] != State.BEHIND:
        promote_next(connection, queue, row[1], now)
    return True


def purge(connection: sqlite3.Connection, queue: Queue) -> int:
    """Remove every job that waits; returns how many. What runs goes on, dead letters stay."""
    waiting = "queue = ? AND state IN (0, 1, 3, 4)"
    connection.execute(
        f"DELETE FROM failures WHERE job IN (SELECT id FROM jobs WHERE {waiting} AND attempt > 0)", (queue.id,)
    )
    return connection.execute(f"DELETE FROM jobs WHERE {waiting}", (queue.id,)).rowcount


def letters(connection: sqlite3.Connection, queues: list[Queue], offset: int, limit: int) -> list[dict[str, Any]]:
    """Return dead letters of these queues, the newest first."""
    marks = ",".join("?" * len(queues))
    rows = connection.execute(
        f"{_LETTER} AND jobs.queue IN ({marks}) ORDER BY ended DESC, seq DESC LIMIT ? OFFSET ?",
        (*(queue.id for queue in queues), limit, offset),
    ).fetchall()
    return [_letter(connection, row) for row in rows]


def _letter(connection: sqlite3.Connection, row: tuple[Any, ...]) -> dict[str, Any]:
    failures = connection.execute(
        "SELECT attempt, started, ended, error FROM failures WHERE job = ? ORDER BY rowid", (row[0],)
    )
    attempts = [
        {"attempt": attempt, "started_at": started, "ended_at": ended, "error": orjson.loads(error)}
        for attempt, started, ended, error in failures
    ]
    last = attempts[-1]["error"] if attempts else {}
    return {
        "id": row[0],
        "payload": orjson.loads(row[1]),
        "error": f"{last.get('code', 'unknown')}: {last.get('message', '')}",
        "failed_at": row[2],
        "retries": row[3],
        "size_bytes": len(row[1]),
        "attempts": attempts,
        "interrupted": row[5],
        "group": row[6],
        "traceparent": row[7],
        "function_id": row[8],
        "enqueued_at": row[9],
        "queue": row[10],
    }


def redrive_all(connection: sqlite3.Connection, queue: Queue, now: int) -> int:
    """Deliver all dead letters of a queue again, the oldest first; returns how many."""
    rows = connection.execute(
        "SELECT id FROM jobs WHERE queue = ? AND state = 5 ORDER BY ended, seq", (queue.id,)
    ).fetchall()
    for (job,) in rows:
        redrive(connection, queue, job, now)
    return len(rows)


def redrive(connection: sqlite3.Connection, queue: Queue, job: str, now: int, data: bytes | None = None) -> bool:
    """Deliver a dead letter again, with new `data` if given; False when there is no such letter.

    It keeps its id, its failures and its attempt number and gets its whole budget back. It goes to the end of its
    queue, or back to its place when it blocks its group.
    """
    row = connection.execute(
        "SELECT seq, grp FROM jobs WHERE id = ? AND queue = ? AND state = 5", (job, queue.id)
    ).fetchone()
    if row is None:
        return False
    seq, group = row
    if queue.blocks and group is not None:
        connection.execute(
            "UPDATE jobs SET state = 3, due = ?, spent = 0, interrupted = 0, suspect = 0, ended = NULL WHERE seq = ?",
            (now, seq),
        )
        promote_if_headless(connection, queue, group, now)
    else:
        state = entry_state(connection, queue, group, due=now, now=now)
        kept = connection.execute(f"DELETE FROM jobs WHERE seq = ? RETURNING {_KEPT}", (seq,)).fetchone()
        marks = ",".join("?" * len(kept))
        connection.execute(
            f"INSERT INTO jobs ({_KEPT}, state, due, created) VALUES ({marks}, ?, ?, ?)", (*kept, state, now, now)
        )
    if data is not None:
        connection.execute("UPDATE jobs SET data = ? WHERE id = ?", (data, job))
    return True


def discard(connection: sqlite3.Connection, queue: Queue, job: str, now: int) -> bool:
    """Forget a dead letter; False when there is no such letter."""
    row = connection.execute(
        "DELETE FROM jobs WHERE id = ? AND queue = ? AND state = ? RETURNING grp", (job, queue.id, State.DEAD)
    ).fetchone()
    if row is None:
        return False
    connection.execute("DELETE FROM failures WHERE job = ?", (job,))
    if queue.blocks and row[0] is not None:
        promote_if_headless(connection, queue, row[0], now)
    return True
