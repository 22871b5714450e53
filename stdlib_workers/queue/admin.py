"""What an operator asks of a queue: counts, peek, cancel, purge, and its dead letters. SQL in one transaction.

Every count is a count of rows at this moment. Dead letters are the rows of `jobs` in state DEAD, with the errors of
every attempt: list, count and redrive read the same rows, so they cannot disagree.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

import orjson

from stdlib_workers.queue import lanes
from stdlib_workers.queue.groups import entry_state, promote_if_headless, promote_next
from stdlib_workers.queue.model import Queue, State
from stdlib_workers.queue.new_jobs import Content, content_checksum
from stdlib_workers.queue.schema import CHECKSUM, CONTENT
from stdlib_workers.storage import CORRUPT, StorageFailure, row_checksum

_OF_STATE = "(SELECT count(*) FROM jobs WHERE queue = ?1 AND state = {})"
_COUNTS = (
    f"SELECT {', '.join(_OF_STATE.format(int(state)) for state in State)}, done, failed, fenced, paused "
    "FROM queues WHERE id = ?1"
)

_LETTER = (
    f"SELECT {CONTENT['jobs']}, {CHECKSUM}, ended, attempt, interrupted, created, "
    "(SELECT name FROM queues WHERE id = queue) FROM jobs WHERE state = 5"
)
_KEPT = f"{CONTENT['jobs']}, attempt, waits, checksum"


_WAITING = "state IN (0, 1, 3, 4, 6, 7)"
# In the place of an attempt's error that is damaged.
_LOST = orjson.dumps({"code": CORRUPT, "message": "what was written down of this attempt is damaged on the disk"})
# Of a job that the disk alone has made a dead letter.
_DAMAGED = {"code": CORRUPT, "message": "the job is damaged on the disk and was not run"}


def counts(connection: sqlite3.Connection, queue: Queue) -> dict[str, Any]:
    """Return a queue's figures. `depth` is everything accepted that is neither done nor dead."""
    row = connection.execute(_COUNTS, (queue.id,)).fetchone()
    ready, delayed, running, behind, held, dead, limited, filling, done, failed, fenced, paused = (
        row  # in the order of State
    )
    return {
        "depth": ready + delayed + running + behind + held + limited + filling,
        "ready": ready,
        "delayed": delayed,
        "running": running,
        "behind": behind,
        "held": held,
        "limited": limited,
        "filling": filling,
        "dlq_depth": dead,
        "delivered": done,
        "failed": failed,
        "fenced": fenced,
        "paused": bool(paused),
    }


def peek(connection: sqlite3.Connection, queue: Queue, offset: int, limit: int) -> list[dict[str, Any]]:
    """Return live jobs in the order in which they came, each with the key that holds it up, if one does."""
    rows = connection.execute(
        f"SELECT {CONTENT['jobs']}, {CHECKSUM}, seq, state, due, attempt, spent, created, started "
        "FROM jobs WHERE queue = ? AND state != 5 ORDER BY seq LIMIT ? OFFSET ?",
        (queue.id, limit, offset),
    ).fetchall()
    return [
        {
            "id": content.id,
            "function_id": content.function_id,
            "namespace": content.namespace,
            "state": State(state).name.lower(),
            "waits_for": lanes.waits_for(connection, queue, seq, State(state)),
            "priority": content.priority,
            "due_at": due,
            "group": content.grp,
            "attempt": attempt,
            "failures": spent,
            "enqueued_at": created,
            "started_at": started,
            "payload": content.payload(),
            **({} if content.is_sound else {"damaged": True}),
        }
        for *fields, seq, state, due, attempt, spent, created, started in rows
        for content in [Content(*fields)]
    ]


def find_job(connection: sqlite3.Connection, job: str) -> tuple[int, State] | None:
    """Return the id of the queue that holds a job, and the job's state."""
    row = connection.execute("SELECT queue, state FROM jobs WHERE id = ?", (job,)).fetchone()
    return None if row is None else (row[0], State(row[1]))


def cancel(connection: sqlite3.Connection, queue: Queue, job: str, now: int) -> bool:
    """Remove a job that waits; False when it runs, is dead, or is gone."""
    found = connection.execute(f"SELECT state, seq FROM jobs WHERE id = ? AND {_WAITING}", (job,)).fetchone()
    if found is None:
        return False
    state, seq = found
    row = lanes.find(connection, seq)
    connection.execute("DELETE FROM jobs WHERE seq = ?", (seq,))
    connection.execute("DELETE FROM failures WHERE job = ?", (job,))
    if state != State.BEHIND:
        promote_next(connection, queue, row.group, now)
    if queue.config.has_keys:
        lanes.left(connection, queue, row, now)
    return True


def purge(connection: sqlite3.Connection, queue: Queue) -> int:
    """Remove every job that waits; returns how many. What runs goes on, dead letters stay."""
    waiting = f"queue = ? AND {_WAITING}"
    connection.execute(
        f"DELETE FROM failures WHERE job IN (SELECT id FROM jobs WHERE {waiting} AND attempt > 0)", (queue.id,)
    )
    return connection.execute(f"DELETE FROM jobs WHERE {waiting}", (queue.id,)).rowcount


def letters(connection: sqlite3.Connection, queues: list[Queue], offset: int, limit: int) -> list[dict[str, Any]]:
    """Return dead letters of these queues, the newest first."""
    marks = ",".join("?" * len(queues))
    rows = connection.execute(
        f"{_LETTER} AND queue IN ({marks}) ORDER BY ended DESC, seq DESC LIMIT ? OFFSET ?",
        (*(queue.id for queue in queues), limit, offset),
    ).fetchall()
    return [_letter(connection, row) for row in rows]


def _letter(connection: sqlite3.Connection, row: tuple[Any, ...]) -> dict[str, Any]:
    *fields, ended, attempt, interrupted, created, queue_name = row
    content = Content(*fields)
    failures = connection.execute(
        f"SELECT {CONTENT['failures']}, checksum FROM failures WHERE job = ? ORDER BY rowid", (content.id,)
    ).fetchall()
    attempts = [
        {
            "attempt": failure[1],
            "started_at": failure[2],
            "ended_at": failure[3],
            "error": orjson.loads(failure[4] if row_checksum(*failure) == checksum else _LOST),
        }
        for *failure, checksum in failures
    ]
    last = attempts[-1]["error"] if attempts else {} if content.is_sound else _DAMAGED
    return {
        "id": content.id,
        "payload": content.payload(),
        "error": f"{last.get('code', 'unknown')}: {last.get('message', '')}",
        "failed_at": ended,
        "retries": attempt,
        "size_bytes": len(content.data),
        "attempts": attempts,
        "interrupted": interrupted,
        "group": content.grp,
        "traceparent": content.traceparent,
        "function_id": content.function_id,
        "enqueued_at": created,
        "queue": queue_name,
    }


def redrive_all(connection: sqlite3.Connection, queue: Queue, now: int) -> int:
    """Deliver all dead letters of a queue again, the oldest first; returns how many."""
    rows = connection.execute(
        "SELECT id FROM jobs WHERE queue = ? AND state = 5 ORDER BY ended, seq", (queue.id,)
    ).fetchall()
    redriven = 0
    for (job,) in rows:
        with suppress(StorageFailure):  # a damaged one stays where it is, and is named in the list of dead letters
            redriven += redrive(connection, queue, job, now)
    return redriven


def redrive(connection: sqlite3.Connection, queue: Queue, job: str, now: int, data: bytes | None = None) -> bool:
    """Deliver a dead letter again, with new `data` if given; False when there is no such letter.

    It keeps its id, its failures and its attempt number and gets its whole budget back. It goes to the end of its
    queue, or back to its place when it blocks its group.
    """
    row = connection.execute(
        f"SELECT seq, {CONTENT['jobs']}, {CHECKSUM} FROM jobs WHERE id = ? AND queue = ? AND state = 5", (job, queue.id)
    ).fetchone()
    if row is None:
        return False
    seq, content = row[0], Content(*row[1:])
    if not content.is_sound:
        raise StorageFailure(CORRUPT, f"job {job} is damaged on the disk; it can only be discarded")
    group = content.grp
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
        checksum = content_checksum(*content._replace(data=data)[:-1])
        connection.execute("UPDATE jobs SET data = ?, checksum = ? WHERE id = ?", (data, checksum, job))
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
