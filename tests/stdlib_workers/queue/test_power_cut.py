"""Q02: the power goes at any sync and at any acknowledgment; the queue's file is rebuilt as the disk would hold it.

Needs strace, so it runs with the slow tests. A store that does without FULL must lose something.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.storage.database import open_database
from stdlib_workers.storage.errors import Refusal
from tests.support.power_cut import STRACE, Disk, Said, Sync, Write, events_from, rebuild

ROOT = Path(__file__).resolve().parents[3]
JOBS = 60
# A sequence of two producers' jobs, every fourth of which fails once; the log is short, so that it begins anew often.
PROGRAM = f"""
import asyncio, os, sys
from pathlib import Path
from stdlib_workers.queue.broker import Broker
from stdlib_workers.attempts import DONE, Outcome, Verdict
from stdlib_workers.queue.model import NewJob, QueueConfig
from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.storage import Store

class Chosen(Store):
    def _serve(self, connection):
        connection.execute("PRAGMA synchronous = " + sys.argv[2])
        connection.execute("PRAGMA wal_autocheckpoint = 16")
        super()._serve(connection)

def say(word, job):
    os.write(1, f"{{word}} {{job}} ".encode())

async def settle(broker, delivery):
    fails = int(delivery.id) % 4 == 0 and delivery.attempt == 1
    if fails:
        await broker.settle(delivery, Verdict(Outcome.FAILED, {{"code": "no", "message": "no"}}))
        await asyncio.sleep(0.01)
        await broker.sweep()
    else:
        say("ending", delivery.id)
        await broker.settle(delivery, DONE)
        say("ended", delivery.id)

async def produce(broker, first):
    for number in range(first, {JOBS}, 2):
        queue = broker.queues["ordered" if first else "any"]
        say("sent", number)
        job = NewJob(str(number), "jobs::run", b'"' + b"x" * 700 + b'"', group="g" if first else None)
        await broker.enqueue(queue, job)
        say("acked", number)

async def main():
    loop = asyncio.get_running_loop()
    clock = lambda: int(loop.time() * 1000)
    broker = Broker(Chosen(Path(sys.argv[1]), SCHEMA), "run", clock)
    broker.start({{"any": QueueConfig(backoff_ms=1), "ordered": QueueConfig(type="fifo", backoff_ms=1)}})
    tasks = []
    start = lambda jobs: tasks.extend(loop.create_task(settle(broker, delivery)) for delivery in jobs.deliveries)
    broker.scheduler.deliver_to(lambda jobs: loop.call_soon_threadsafe(start, jobs))
    await asyncio.gather(produce(broker, 0), produce(broker, 1))
    while sum([row["depth"] for row in await broker.counts(list(broker.queues.values()))]):
        await broker.sweep()
        await asyncio.sleep(0.005)

asyncio.run(main())
os._exit(0)
"""


def losses(folder: Path, synchronous: str) -> tuple[int, list[str]]:
    """Run the program and cut its power everywhere; return the number of cuts and what was wrong after them."""
    folder.joinpath("run").mkdir()
    folder.joinpath("cut").mkdir()
    trace, database = folder / "trace", folder / "run" / "queue.db"
    subprocess.run(
        [*STRACE, "-o", str(trace), sys.executable, "-c", PROGRAM, str(database), synchronous],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    dice = random.Random(7)
    disk, said = Disk(), defaultdict[str, set[str]](set)
    count, found = 0, list[str]()
    for event in events_from(trace.read_text()):
        if isinstance(event, Said):
            word, _, job = event.text.strip().partition(" ")
            if job.isdigit():
                said[word].add(job)
        if isinstance(event, Sync | Said) and said["acked"]:
            for files in disk.cuts(dice):
                count += 1
                found += wrong(rebuild(files, folder / "cut", database.name), said)
        if isinstance(event, Write | Sync) and "/run" in event.path:
            disk.take(_renamed(event))
    assert len(said["ended"]) == JOBS
    return count, found


def _renamed(event: Write | Sync) -> Write | Sync:
    # The file is made under another name and synced before it gets its own, long before the first acknowledgment.
    return event._replace(path=event.path.replace("queue.db.new", "queue.db"))


def wrong(database: Path, said: dict[str, set[str]]) -> list[str]:
    """Open the file as the queue would and compare it with what was promised by then."""
    try:
        file = open_database(database, SCHEMA)
    except Refusal as refusal:
        return [str(refusal)]
    try:
        return _compare(file.connection, said)
    finally:
        file.close()


def _compare(connection: sqlite3.Connection, said: dict[str, set[str]]) -> list[str]:
    there = {row[0] for row in connection.execute("SELECT id FROM jobs")}
    done = connection.execute("SELECT coalesce(sum(done), 0) FROM queues").fetchone()[0]
    [taken] = connection.execute("SELECT seq FROM sqlite_sequence").fetchone() or (0,)
    integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return [
        *(f"job {job} was acknowledged and is gone" for job in said["acked"] - there - said["ending"]),
        *(f"job {job} was done and is back" for job in said["ended"] & there),
        *(f"job {job} was never sent" for job in there - said["sent"]),
        *([f"{done} done and {len(there)} there of {taken}"] if done + len(there) != taken else []),
        *([integrity] if integrity != "ok" else []),
    ]


@pytest.mark.slow
def test_q02_a_power_cut_at_any_moment_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    count, found = losses(tmp_path, "FULL")
    assert count > 5 * JOBS
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_q02_the_same_cuts_find_what_a_weaker_setting_loses(tmp_path: Path, synchronous: str) -> None:
    _, found = losses(tmp_path, synchronous)
    assert any("acknowledged and is gone" in line for line in found)
    assert any("done and is back" in line for line in found)
