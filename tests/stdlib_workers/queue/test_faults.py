"""What happens to jobs when something goes wrong halfway: every move is whole or has not been made."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator

import pytest

from stdlib_workers.attempts import Outcome, Verdict
from stdlib_workers.queue import admin, catalog
from stdlib_workers.queue.delivery import advance, recover, settle
from stdlib_workers.queue.model import NewJob, Queue, QueueConfig
from stdlib_workers.queue.new_jobs import enqueue
from stdlib_workers.queue.schema import TABLES

FAILED = Verdict(Outcome.FAILED, {"code": "invocation_failed", "message": "no"})
MANY = 503


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    opened.executescript(TABLES)
    yield opened
    opened.close()


def queue_with(connection: sqlite3.Connection, count: int, *, delay_ms: int = 0, **config: object) -> Queue:
    """Return a queue of `count` jobs."""
    queue = catalog.define(connection, "jobs", QueueConfig(**config))[0]  # type: ignore[arg-type]
    for number in range(count):
        enqueue(connection, queue, NewJob(f"job-{number}", "jobs::run", b"{}", delay_ms=delay_ms), 0)
    return queue


def break_everywhere(connection: sqlite3.Connection, move: Callable[[], object]) -> Iterator[int]:
    """Stop the transaction `move` after ever more of SQLite's steps, until it is through; yield each failure."""
    for steps in itertools.count():
        left = iter(range(steps))
        connection.execute("BEGIN")
        connection.set_progress_handler(lambda left=left: next(left, None) is None, 40)
        try:
            move()
        except sqlite3.OperationalError:
            connection.set_progress_handler(None, 0)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            yield steps
            continue
        connection.set_progress_handler(None, 0)
        connection.execute("COMMIT")
        return


def test_q10_jobs_that_become_due_survive_a_failure_at_any_point(connection: sqlite3.Connection) -> None:
    queue = queue_with(connection, MANY, delay_ms=100)
    failures = 0
    for _ in break_everywhere(connection, lambda: advance(connection, queue, "run", 100)):
        failures += 1
        assert admin.counts(connection, queue)["delayed"] == MANY
    figures = admin.counts(connection, queue)
    assert failures > 10
    assert (figures["depth"], figures["running"]) == (MANY, queue.config.concurrency)


def test_q11_redriving_twice_and_halfway_delivers_each_job_once(connection: sqlite3.Connection) -> None:
    queue = queue_with(connection, 9, max_retries=1)
    for delivery in advance(connection, queue, "run", 0).deliveries:
        settle(connection, delivery, FAILED, 0, 0.5)
    failures = 0
    for _ in break_everywhere(connection, lambda: admin.redrive_all(connection, queue, 1)):
        failures += 1
        assert admin.counts(connection, queue) | {"dlq_depth": 9, "depth": 0} == admin.counts(connection, queue)
    assert failures > 3
    assert admin.counts(connection, queue) | {"dlq_depth": 0, "ready": 9} == admin.counts(connection, queue)
    assert admin.redrive_all(connection, queue, 2) == 0
    assert {d.id for d in advance(connection, queue, "run", 2).deliveries} == {f"job-{n}" for n in range(9)}


def test_q09_a_restart_neither_resets_nor_bunches_retries(connection: sqlite3.Connection) -> None:
    queue = queue_with(connection, 2, backoff_ms=1000, concurrency=2)
    first, second = advance(connection, queue, "run", 0).deliveries
    settle(connection, first, FAILED, 0, 0.5)
    settle(connection, second, FAILED, 500, 0.5)
    recover(connection, {queue.id: queue}, 700)
    assert [advance(connection, queue, "next run", now).due for now in (700, 999)] == [1000, 1000]
    assert [d.id for d in advance(connection, queue, "next run", 1000).deliveries] == [first.id]
    assert [d.id for d in advance(connection, queue, "next run", 1500).deliveries] == [second.id]
