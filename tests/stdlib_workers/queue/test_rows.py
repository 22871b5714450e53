"""Q04 whole: a job whose worker dies is redelivered at once, and its attempt is on the disk before it is made."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.model import NewJob, QueueConfig, State
from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.storage import Store
from tests.support.live_project import project

# The row's bound, in seconds. The machine may be busy with others: one of several deaths has to keep it.
REDELIVERED, DEATHS = 0.25, 4

TOML = """
[engine]
listen = "off"
[workers.queue.config.queue_configs]
quick = { backoff_ms = 10, max_retries = 3 }
[workers.jobs]
run = "jobs.py"
instances = 5
"""
JOBS = """
import time
def run(payload, metadata):
    attempt = metadata["iii.job"]["attempt"]
    if attempt == 1:
        say("dies", payload["n"], attempt, os.getpid(), time.monotonic())
        os.kill(os.getpid(), signal.SIGKILL)
    say("lives", payload["n"], attempt, os.getpid(), time.monotonic())
worker.register_function("jobs::run", run)
"""


def test_q04_a_job_whose_worker_is_killed_is_redelivered_at_once(tmp_path: Path) -> None:
    pauses = []
    with project(tmp_path, TOML, {"jobs": JOBS}) as running:
        for n in range(DEATHS):
            running.enqueue("jobs::run", {"n": n}, "quick")
            [lived] = running.wait(f"lives {n} ")
            # Its worker dies before another has it: that is said first.
            [died] = running.wait(f"dies {n} ")
            (_, _, first, dead, death), (_, _, second, alive, again) = died.split(), lived.split()
            assert (first, second) == ("1", "2")
            assert dead != alive
            pauses.append(float(again) - float(death))
    assert min(pauses) <= REDELIVERED, pauses


def test_q04_an_attempt_is_on_the_disk_before_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    store = Store(path, SCHEMA)
    broker = Broker(store, "run", lambda: 1000)
    broker.start({"jobs": QueueConfig()})
    seen = []

    def look(_: object) -> None:
        other = sqlite3.connect(path)
        seen.append(other.execute("SELECT attempt, state FROM jobs WHERE id = 'job-1'").fetchone())
        other.close()

    broker.scheduler.deliver_to(look)
    asyncio.run(broker.enqueue(broker.queues["jobs"], NewJob("job-1", "jobs::run", b"{}")))
    store.close()
    assert seen == [(1, State.RUNNING)]
