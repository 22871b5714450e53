"""Q27: a million waiting jobs are on the disk, not in memory. A file of that size takes long to make: a slow test."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from stdlib_workers.queue import catalog
from stdlib_workers.queue.delivery import advance
from stdlib_workers.queue.limits import ConcurrencyKey
from stdlib_workers.queue.model import NewJob, QueueConfig
from stdlib_workers.queue.new_jobs import enqueue
from stdlib_workers.queue.schema import SCHEMA, TABLES
from stdlib_workers.storage import Store

ROOT = Path(__file__).resolve().parents[3]
FILL = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
INSERT INTO jobs (id, queue, state, due, created, function_id, data)
SELECT 'job-' || n, 1, n % 2, 9000000000000, 0, 'jobs::run', x'7b7d' FROM number
"""
# Starts as the worker does, sweeps once, and prints how many attempts that began, its memory in MiB and the seconds.
START = """
import asyncio, resource, sys, time
begin = time.monotonic()
from pathlib import Path
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.storage import Store
broker = Broker(Store(Path(sys.argv[1]), SCHEMA), "run", lambda: 1)
broker.start({})
started = []
broker.scheduler.deliver_to(started.append)
asyncio.run(broker.sweep())
seconds = time.monotonic() - begin
print(len(started[0].deliveries), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, seconds)
"""


def start(path: Path) -> tuple[int, int, float]:
    """Return how many attempts begin at the start, the most memory in use, in MiB, and how long it took."""
    done = subprocess.run(
        [sys.executable, "-c", START, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    deliveries, memory, seconds = done.stdout.split()
    return int(deliveries), int(memory), float(seconds)


@pytest.mark.slow
def test_q27_a_million_waiting_jobs_cost_a_start_neither_memory_nor_time(tmp_path: Path) -> None:
    memory = []
    for count in (100, 1_000_000):
        path = tmp_path / f"{count}.db"
        store = Store(path, SCHEMA)
        store.run(lambda connection: catalog.define(connection, "jobs", QueueConfig())).result(30)
        store.run(lambda connection, count=count: connection.execute(FILL, (count,)).rowcount).result(60)  # type: ignore[misc]
        store.close()
        deliveries, used, seconds = start(path)
        assert deliveries == QueueConfig().concurrency
        memory.append(used)
        # It takes a fraction of a second. Looking at every job would take longer than this.
        assert seconds <= 5.0
    assert memory[1] - memory[0] <= 100, memory


FILL_KEY = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
INSERT INTO jobs (id, queue, state, due, created, function_id, data, lane, ckey, checksum)
SELECT 'job-' || n, 1, CASE n WHEN 1 THEN 2 WHEN 2 THEN 6 ELSE 3 END, 0, 0, 'jobs::run', x'7b7d', ?, ?, 0 FROM number
"""


@pytest.mark.slow
def test_38_a_million_jobs_of_a_full_key_do_not_hold_up_the_start_of_another() -> None:
    config = QueueConfig(concurrency_key=ConcurrencyKey("who", 1))
    steps = []
    for count in (100, 1_000_000):
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.executescript(TABLES)
        queue = catalog.define(connection, "jobs", config)[0]
        full = config.keys_of("jobs::run", None, {"who": "full"})
        connection.execute(FILL_KEY, (count, full.lane, full.concurrency))
        job = NewJob("other", "jobs::run", b"{}", keys=config.keys_of("jobs::run", None, {"who": "other"}))
        taken = [0]

        def count_step(taken: list[int] = taken) -> None:
            taken[0] += 1

        connection.set_progress_handler(count_step, 1)  # instructions of SQLite: what it does, not how long that takes
        enqueue(connection, queue, job, 5)
        started = advance(connection, queue, "run", 5).deliveries
        connection.set_progress_handler(None, 1)
        assert [delivery.id for delivery in started] == ["other"]
        steps.append(taken[0])
        connection.close()
    assert steps[1] < steps[0] * 1.5, steps
    assert steps[1] < 20_000, steps  # some milliseconds, on any machine
