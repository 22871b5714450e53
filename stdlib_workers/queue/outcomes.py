"""What jobs have come to, for callers that wait for it. SQL in one transaction.

A caller that waits is answered from memory when its job ends. What it got is kept as long as the job's idempotency key,
so that a caller that died, or whose queue worker did, asks again with the key and gets it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from iii import InvocationError
from stdlib_workers.attempts import Verdict
from stdlib_workers.queue.model import NewJob, Queue, State
from stdlib_workers.queue.new_jobs import refused
from stdlib_workers.storage import check_row, row_checksum

# Names, in the baggage of a job's call, the jobs that would wait for a job which the call enqueues and waits for.
WAITERS = "iii.job"
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
    encoded = orjson.dumps(tuple(ended))
    if len(encoded) > MAX_KEPT:
        text = f"the job has ended; its result of {len(encoded)} bytes was too large to be kept"
        encoded = orjson.dumps((None, {"code": "result_not_kept", "message": text}))
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


def check_waiters(connection: sqlite3.Connection, queue: Queue, job: NewJob) -> None:
    """Refuse a job that could only run after one that waits for it. InvocationError `deadlock_detected`."""
    members = (member.partition("=") for member in (job.baggage or "").split(","))
    waiters = {unquote(value) for name, _, value in members if name.strip() == WAITERS}
    statement = "SELECT grp, ckey FROM jobs WHERE id = ? AND queue = ? AND state = 2"
    running = [connection.execute(statement, (waiter, queue.id)).fetchone() for waiter in sorted(waiters)]
    held = [row for row in running if row is not None]
    what = None
    if job.group is not None and any(group == job.group for group, _ in held):
        what = f"the group {job.group!r} of queue {queue.name}"
    limited = queue.config.concurrency_key
    if limited is not None and sum(key == job.keys.concurrency for _, key in held) >= limited.limit:
        what = f"{limited.field} {job.keys.concurrency} of queue {queue.name}"
    if what is not None:
        text = f"this job holds {what}, in which the job that it would wait for runs after it; do not wait, or call it"
        raise InvocationError("deadlock_detected", text)


def gone(connection: sqlite3.Connection, jobs: Sequence[str]) -> list[str]:
    """Return those jobs that are not there."""
    statement = "SELECT 1 FROM jobs WHERE id = ?"
    return [job for job in jobs if connection.execute(statement, (job,)).fetchone() is None]


def forget(connection: sqlite3.Connection, now: int, limit: int = 500) -> None:
    """Drop results that nobody asks for any more."""
    connection.execute(
        "DELETE FROM outcomes WHERE job IN (SELECT job FROM outcomes WHERE expires <= ? LIMIT ?)", (now, limit)
    )
