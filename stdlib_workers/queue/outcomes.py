"""What jobs have come to, for callers that wait for it. SQL in one transaction.

A caller that waits is answered from memory when its job ends. What it got is kept as long as the job's idempotency key,
so that a caller that died, or whose queue worker did, asks again with the key and gets it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from iii import InvocationError
from stdlib_workers.attempts import Verdict
from stdlib_workers.queue.model import Queue, State
from stdlib_workers.queue.new_jobs import refused
from stdlib_workers.storage import check_row, row_checksum

# A larger result reaches the caller that waits, and is not kept.
MAX_KEPT = 1 << 20


class Ended(NamedTuple):
    """How a job has ended: with the result of its function, or with an error's fields."""

    result: Any = None
    error: dict[str, Any] | None = None

    def value(self) -> Any:
        """Return the result. InvocationError for an error."""
        if self.error is not None:
            code, message = str(self.error.get("code")), str(self.error.get("message"))
            raise InvocationError(code, message, details=self.error.get("details"))
        return self.result


def ended_by(verdict: Verdict) -> Ended:
    """Return how a job has ended whose last attempt came to this."""
    return Ended(None, verdict.error) if verdict.error else Ended(verdict.result)


def keep(connection: sqlite3.Connection, queue: Queue, job: str, ended: Ended, now: int) -> None:
    """Keep how a job has ended as long as its idempotency key; a job without one is not asked for again."""
    expires = now + queue.config.key_window_ms
    rows = connection.execute("SELECT queue, key, job, expires FROM keys WHERE job = ?", (job,)).fetchall()
    for queue_id, key, *_ in rows:
        checksum = row_checksum(queue_id, key, job, expires)
        connection.execute(
            "UPDATE keys SET expires = ?, checksum = ? WHERE queue = ? AND key = ?", (expires, checksum, queue_id, key)
        )
    encoded = orjson.dumps(ended)
    if len(encoded) > MAX_KEPT:
        text = f"the job has ended; its result of {len(encoded)} bytes was too large to be kept"
        encoded = orjson.dumps(Ended(None, {"code": "result_not_kept", "message": text}))
    if rows:
        row = (job, encoded, expires)
        connection.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?)", (*row, row_checksum(*row)))


def find_or_await(connection: sqlite3.Connection, job: str) -> Ended | None:
    """Return how a job has ended; None, and its end will be kept, if it has not."""
    row = connection.execute("SELECT state FROM jobs WHERE id = ?", (job,)).fetchone()
    if row is not None and row[0] != State.DEAD:
        connection.execute("UPDATE jobs SET waits = 1 WHERE id = ? AND waits = 0", (job,))
        return None
    kept = connection.execute("SELECT job, outcome, expires, checksum FROM outcomes WHERE job = ?", (job,)).fetchone()
    if kept is not None:
        check_row(f"the result of job {job}", kept[3], *kept[:3])
        return Ended(*orjson.loads(kept[1]))
    if row is None:
        raise refused("result_not_kept", f"job {job} has ended, and no caller waited for its result")
    failure = connection.execute("SELECT error FROM failures WHERE job = ? ORDER BY rowid DESC", (job,)).fetchone()
    text = {"code": "dead_letter", "message": f"job {job} is a dead letter"}
    return Ended(None, orjson.loads(failure[0]) if failure else text)


def gone(connection: sqlite3.Connection, jobs: Sequence[str]) -> list[str]:
    """Return those jobs that are not there."""
    statement = "SELECT 1 FROM jobs WHERE id = ?"
    return [job for job in jobs if connection.execute(statement, (job,)).fetchone() is None]


def forget(connection: sqlite3.Connection, now: int, limit: int = 500) -> None:
    """Drop results that nobody asks for any more."""
    connection.execute(
        "DELETE FROM outcomes WHERE job IN (SELECT job FROM outcomes WHERE expires <= ? LIMIT ?)", (now, limit)
    )
