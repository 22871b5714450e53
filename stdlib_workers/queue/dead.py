"""Dead letters: the rows of `jobs` in state DEAD, with the story of every attempt. SQL in one transaction.

List, count and redrive are questions to the same rows, so they cannot disagree.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import orjson

from stdlib_workers.queue.intake import entry_state, lead
from stdlib_workers.queue.model import Queue, State

_LETTER = (
    "SELECT jobs.id, data, ended, attempt, spent, interrupted, grp, traceparent, jobs.function_id, created, "
    "queues.name FROM jobs JOIN queues ON queues.id = jobs.queue WHERE state = 5"
)


def letters(connection: sqlite3.Connection, queues: list[Queue], offset: int, limit: int) -> list[dict[str, Any]]:
    """Return dead letters of these queues, the newest first."""
    marks = ",".join("?" * len(queues))
    rows = connection.execute(
        f"{_LETTER} AND jobs.queue IN ({marks}) ORDER BY ended DESC, seq DESC LIMIT ? OFFSET ?",
        (*(queue.id for queue in queues), limit, offset),
    ).fetchall()
    return [_letter(row, _story(connection, row[0])) for row in rows]


def _letter(row: tuple[Any, ...], attempts: list[dict[str, Any]]) -> dict[str, Any]:
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


def _story(connection: sqlite3.Connection, job: str) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT attempt, started, ended, error FROM failures WHERE job = ? ORDER BY rowid", (job,)
    )
    return [
        {"attempt": attempt, "started_at": started, "ended_at": ended, "error": orjson.loads(error)}
        for attempt, started, ended, error in rows
    ]


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

    It keeps its id, its story and its attempt number and gets its whole budget back. It goes to the end of its queue,
    or back to its place when it blocks its group.
    """
    row = connection.execute(
        "SELECT seq, grp FROM jobs WHERE id = ? AND queue = ? AND state = 5", (job, queue.id)
    ).fetchone()
    if row is None:
        return False
    if queue.blocks and row[1] is not None:
        _revive(connection, row[0], row[1], queue, now)
    else:
        state = entry_state(connection, queue, row[1], due=now, now=now)
        _move_to_end(connection, row[0], state, now)
    if data is not None:
        connection.execute("UPDATE jobs SET data = ? WHERE id = ?", (data, job))
    return True


def _revive(connection: sqlite3.Connection, seq: int, group: str, queue: Queue, now: int) -> None:
    connection.execute(
        "UPDATE jobs SET state = 3, due = ?, spent = 0, interrupted = 0, suspect = 0, ended = NULL WHERE seq = ?",
        (now, seq),
    )
    live = "SELECT 1 FROM jobs WHERE queue = ? AND grp = ? AND state IN (0, 1, 2, 4) AND grp IS NOT NULL"
    if connection.execute(live, (queue.id, group)).fetchone() is None:
        lead(connection, queue, group, now)


def _move_to_end(connection: sqlite3.Connection, seq: int, state: int, now: int) -> None:
    columns = "id, queue, priority, grp, attempt, function_id, namespace, traceparent, baggage, metadata, data"
    row = connection.execute(f"DELETE FROM jobs WHERE seq = ? RETURNING {columns}", (seq,)).fetchone()
    marks = ",".join("?" * len(row))
    connection.execute(
        f"INSERT INTO jobs ({columns}, state, due, created) VALUES ({marks}, ?, ?, ?)", (*row, state, now, now)
    )


def discard(connection: sqlite3.Connection, queue: Queue, job: str, now: int) -> bool:
    """Forget a dead letter; False when there is no such letter."""
    row = connection.execute(
        "DELETE FROM jobs WHERE id = ? AND queue = ? AND state = ? RETURNING grp", (job, queue.id, State.DEAD)
    ).fetchone()
    if row is None:
        return False
    connection.execute("DELETE FROM failures WHERE job = ?", (job,))
    if queue.blocks and row[0] is not None:
        _lead_if_headless(connection, queue, row[0], now)
    return True


def _lead_if_headless(connection: sqlite3.Connection, queue: Queue, group: str, now: int) -> None:
    live = "SELECT 1 FROM jobs WHERE queue = ? AND grp = ? AND state IN (0, 1, 2, 4) AND grp IS NOT NULL"
    if connection.execute(live, (queue.id, group)).fetchone() is None:
        lead(connection, queue, group, now)
