"""Q27: a million waiting jobs are on the disk, not in memory. A file of that size takes long to make: a slow test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stdlib_workers.queue import catalog
from stdlib_workers.queue.model import QueueConfig
from stdlib_workers.queue.schema import SCHEMA
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
