"""What an operator asks of a queue: counts, peek, cancel, purge. SQL in one transaction.

Every count is a count of rows at this moment.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from stdlib_workers.queue.groups import promote_next
from stdlib_workers.queue.model import Queue, State

_OF_STATE = "(SELECT count(*) FROM jobs WHERE queue = ?1 AND state = {})"
_COUNTS = (
    f"SELECT {', '.join(_OF_STATE.format(int(state)) for state in State)}, done, failed, fenced, paused "
    "FROM queues WHERE id = ?1"
)


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
