"""Queue: what a durable job costs. `python -m benchmarks.b_queue [--quick]`; needs the group `benchmarks`.

The bare SQLite file under the same grouping, huey and persist-queue are filled in the same rounds, on the same disk,
each with a sync of the disk before it acknowledges. What a million waiting jobs change is compared with a thousand.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.b_state import over_wire, read_report
from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.report import table
from benchmarks.setups import engine, worker_table
from stdlib_workers.attempts import DONE
from stdlib_workers.queue.catalog import define
from stdlib_workers.queue.delivery import advance, settle
from stdlib_workers.queue.model import NewJob, Queue, QueueConfig
from stdlib_workers.queue.new_jobs import enqueue
from stdlib_workers.queue.schema import TABLES

WINDOW = 64
TARGET_BARE, TARGET_HUEY, TARGET_PERSIST, TARGET_FLAT = 0.5, 5.0, 3.0, 1.5
# To the handler's start: one sync of the disk and this many microseconds.
ALLOWANCE_US = 2000.0
QUIET = "[workers.queue.config.queue_configs.quiet]\n"
# Fsync has to cost what it costs on the disk of the project: a folder in memory would measure nothing.
FOLDER = Path.cwd()


def run(options: Options) -> list[Row]:
    """Return every comparison."""
    setups: dict[str, Callable[[], dict[str, float]]] = {
        "bare": lambda: {"rate": bare(WINDOW, options.calls(30_000)), "one": bare(1, options.calls(500))},
        "huey": lambda: {"rate": huey(options.calls(1_000))},
        "persist": lambda: {"rate": persist_queue(options.calls(1_000))},
        "queue": lambda: through_engine(options.calls(20_000)),
        "wire": lambda: {"rate": over_wire("queue", "enqueue", options.calls(40_000), QUIET)},
    }
    figures = interleave(setups, max(3, options.rounds // 2))

    def rates(name: str) -> list[float]:
        return [each["rate"] for each in figures[name]]

    what = f"durable enqueue, {WINDOW} in flight, against "
    rows = [
        Comparison("Q1", what + "bare SQLite", "jobs/s", TARGET_BARE, False).row(rates("wire"), rates("bare")),
        Comparison("Q2", what + "huey", "jobs/s", TARGET_HUEY, False).row(rates("wire"), rates("huey")),
        Comparison("Q3", what + "persist-queue", "jobs/s", TARGET_PERSIST, False).row(rates("wire"), rates("persist")),
        Comparison("Q4", "enqueue to handler start, against one sync + 2 ms", "us", 1.0).row(
            [each["start_us"] for each in figures["queue"]],
            [1e6 / each["one"] + ALLOWANCE_US for each in figures["bare"]],
        ),
    ]
    return [*rows, flat(options)]


@contextmanager
def folder() -> Iterator[Path]:
    """A fresh folder on the project's disk."""
    made = Path(tempfile.mkdtemp(prefix=".bench-", dir=FOLDER))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def bare(group: int, rows: int) -> float:
    """Return the rows per second that one SQLite connection writes durably, `group` to a commit."""
    with folder() as made:
        database = sqlite3.connect(made / "bare.db", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
        begin = time.perf_counter()
        for start in range(0, rows, group):
            database.execute("BEGIN IMMEDIATE")
            for _ in range(start, start + group):
                database.execute("INSERT INTO t (data) VALUES (?)", (b'{"n":1}',))
            database.execute("COMMIT")
        seconds = time.perf_counter() - begin
        database.close()
    return rows / seconds


def huey(jobs: int) -> float:
    """Return the jobs per second that huey takes in, with its SQLite storage and fsync on."""
    from huey import SqliteHuey  # only who compares needs it

    with folder() as made:
        queue = SqliteHuey(filename=str(made / "huey.db"), fsync=True)

        @queue.task()
        def job(n: int) -> None:
            """Never run here."""

        begin = time.perf_counter()
        for _ in range(jobs):
            job(1)
        seconds = time.perf_counter() - begin
        queue.storage.close()
    return jobs / seconds


def persist_queue(jobs: int) -> float:
    """Return the jobs per second that persist-queue's SQLite queue takes in, one commit each."""
    import persistqueue  # only who compares needs it

    with folder() as made:
        queue = persistqueue.SQLiteQueue(str(made), auto_commit=True)
        begin = time.perf_counter()
        for _ in range(jobs):
            queue.put({"n": 1})
        seconds = time.perf_counter() - begin
        queue.close()
    return jobs / seconds


def through_engine(jobs: int) -> dict[str, Any]:
    """Return the figures of `ends/queue_caller.py` in a project of its own."""
    with folder() as made:
        report = made / "report"
        os.mkfifo(report)
        caller = worker_table("caller", "queue_caller.py", (), {"report": str(report), "calls": jobs})
        head = '[engine]\nlisten = "off"\n' + QUIET
        caller = caller.replace("[workers.caller]", '[workers.caller]\nafter = ["queue"]', 1)
        (made / "iii.toml").write_text(head + caller, encoding="utf-8")
        with engine(made, "start"):
            return read_report(report)


def flat(options: Options) -> Row:
    """Compare the cost of a job among many waiting ones with that among few."""
    many = options.calls(1_000_000)
    full, empty = filled(many), filled(1_000)
    setups = {"full": lambda: cost(*full), "empty": lambda: cost(*empty)}
    figures = interleave(setups, options.rounds)
    what = f"a job's whole life among {many:,} waiting ones, against 1,000"
    return Comparison("Q5", what, "us", TARGET_FLAT).row(figures["full"], figures["empty"])


def filled(size: int) -> tuple[sqlite3.Connection, Queue]:
    """Return a database in memory with `size` waiting jobs: what is compared is the work, not the disk."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    queue, _ = define(connection, "bench", QueueConfig(concurrency=1))
    connection.execute("BEGIN")
    for number in range(size):
        enqueue(connection, queue, NewJob(f"job-{number}", "bench::job", b'{"n":1}'), 0)
    connection.execute("COMMIT")
    return connection, queue


def cost(connection: sqlite3.Connection, queue: Queue, times: int = 3000) -> float:
    """Return the microseconds of an enqueue, a claim and an end of a job."""
    begin = time.perf_counter()
    connection.execute("BEGIN")
    for number in range(times):
        enqueue(connection, queue, NewJob(f"more-{begin}-{number}", "bench::job", b'{"n":1}'), 0)
        for delivery in advance(connection, queue, "run", 0).deliveries:
            settle(connection, delivery, DONE, 0, 0.5)
    connection.execute("COMMIT")
    return (time.perf_counter() - begin) / times * 1e6


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_queue", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer jobs and rounds")
    print(table(run(Options(quick=parser.parse_args().quick))))


if __name__ == "__main__":
    main()
