"""State and stream: what durability, a read and a fan-out cost. `python -m benchmarks.b_state [--quick]`.

Writes are compared with the bare SQLite file under the same grouping, on the same disk, in the same round; reads with
an empty call through the same engine. Fan-out and the cost at a million keys are compared with their own small size.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.report import table
from benchmarks.setups import ENDS, PATIENCE, engine, worker_table
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from stdlib_workers.stream.events import Group, envelope
from stdlib_workers.stream.hub import Hub, Subscriber, Subscription
from stdlib_workers.stream.log import LoggedEvent
from stdlib_workers.values import encode

WINDOW = 64
TARGET_MANY, TARGET_ONE, TARGET_GET, TARGET_FLAT = 0.5, 1.3, 1.3, 1.3
# Fsync has to cost what it costs on the disk of the project: a folder in memory would measure nothing.
FOLDER = Path.cwd()


def run(options: Options) -> list[Row]:
    """Return every comparison."""
    return [*calls(options), fan_out(options), flat(options)]


def calls(options: Options) -> list[Row]:
    """Compare writes with the bare file and reads with an empty call."""
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "bare": lambda: {"one": bare(1, options.calls(300)), "many": bare(WINDOW, options.calls(30_000))},
        "state": lambda: through_engine(options.calls(20_000)),
        "wire": lambda: {"set": over_wire("state", "set", options.calls(40_000))},
    }
    figures = interleave(runs, max(3, options.rounds // 2))
    state, floor = figures["state"], figures["bare"]
    many = Comparison("S1", f"state::set, {WINDOW} in flight, against bare SQLite", "calls/s", TARGET_MANY, False)
    one = Comparison("S2", "state::set, 1 in flight, against bare SQLite", "us", TARGET_ONE)
    get = Comparison("S3", "state::get against an empty call", "us", TARGET_GET)
    return [
        many.row([each["set"] for each in figures["wire"]], [each["many"] for each in floor]),
        one.row([each["set one"]["p50_us"] for each in state], [1e6 / each["one"] for each in floor]),
        get.row([each["get"]["p50_us"] for each in state], [each["empty"]["p50_us"] for each in state]),
    ]


def bare(group: int, rows: int) -> float:
    """Return the rows per second that one SQLite connection writes durably, `group` to a commit."""
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=FOLDER))
    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE t (key TEXT PRIMARY KEY, value BLOB)")
    begin = time.perf_counter()
    for start in range(0, rows, group):
        database.execute("BEGIN IMMEDIATE")
        for number in range(start, start + group):
            database.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (f"k{number % 1000}", b'{"n":1}'))
        database.execute("COMMIT")
    seconds = time.perf_counter() - begin
    database.close()
    shutil.rmtree(folder)
    return rows / seconds


def through_engine(times: int) -> dict[str, Any]:
    """Return the figures of `ends/state_caller.py` in a project of its own."""
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=FOLDER))
    report = folder / "report"
    os.mkfifo(report)
    caller = worker_table("caller", "state_caller.py", (), {"report": str(report), "calls": times})
    echo = worker_table("callee", "sdk_callee.py", (), {"cpu": -1})
    (folder / "iii.toml").write_text(f'[engine]\nlisten = "off"\n[workers.state]\n{echo}{caller}', encoding="utf-8")
    try:
        with engine(folder, "start"):
            return read_report(report)
    finally:
        shutil.rmtree(folder)


def over_wire(worker: str, load: str, calls: int, config: str = "") -> float:
    """Return the calls per second that a standard worker answers to a caller without SDK, 64 in flight."""
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=FOLDER))
    report = folder / "report"
    os.mkfifo(report)
    command = [sys.executable, str(ENDS / "wire_caller.py"), str(report), str(WINDOW), str(calls), load]
    caller = worker_table("caller", None, command, {})
    (folder / "iii.toml").write_text(
        f'[engine]\nlisten = "off"\n[workers.{worker}]\n{config}{caller}', encoding="utf-8"
    )
    try:
        with engine(folder, "start"):
            found: float = read_report(report)["calls_per_s"]
            return found
    finally:
        shutil.rmtree(folder)


def read_report(report: Path) -> dict[str, Any]:
    """Return what the caller writes; RuntimeError when it takes too long."""
    pipe = os.open(report, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not select.select([pipe], [], [], PATIENCE)[0]:
            raise RuntimeError("no figures from the caller")
        figures: dict[str, Any] = json.loads(os.read(pipe, 65536))
    finally:
        os.close(pipe)
    return figures


class Sink:
    """Sockets that take everything at once; `all_done` is set when each of them has had an event."""

    def __init__(self, subscribers: int) -> None:
        self.bytes = 0
        self.all_done = asyncio.Event()
        self._subscribers = subscribers
        self._sent = 0

    async def send(self, message: str, /) -> None:
        """Count a message."""
        self.bytes += len(message)
        self._sent += 1
        if self._sent % self._subscribers == 0:
            self.all_done.set()

    async def close(self, code: int, reason: str) -> None:
        """Never called: a sink is never slow."""


async def delivery(subscribers: int, events: int) -> float:
    """Return the median, in microseconds, of the time from an event to the last of its subscribers.

    Prints the 99th percentile and the bytes that each subscriber gets: a figure of one round says too much about what
    else the machine does to be compared.
    """
    hub, sink, group = Hub(), Sink(subscribers), Group("s", "g")
    queues = [Subscriber(sink) for _ in range(subscribers)]
    tasks = [asyncio.create_task(queue.write()) for queue in queues]
    for number, queue in enumerate(queues):
        subscription = Subscription(f"u{number}", group, None, queue)
        subscription.go_live([])
        hub.add(subscription)
    times = []
    for number in range(1, events + 1):
        body = encode(envelope(group, "i", {"type": "update", "data": {"n": number}}, 1))
        sink.all_done.clear()
        begin = time.perf_counter()
        hub.deliver(LoggedEvent(group, "i", number, body))
        await sink.all_done.wait()
        times.append(time.perf_counter() - begin)
    for task in tasks:
        task.cancel()
    times.sort()
    each, late = sink.bytes // events // subscribers, times[len(times) * 99 // 100] * 1e6
    print(f"   {subscribers} subscribers: p99 {late:,.0f} us to the last of them, {each} bytes an event for each")
    return times[len(times) // 2] * 1e6


def fan_out(options: Options) -> Row:
    """Compare one event to 1,000 subscribers with ten times one event to 100."""
    events = options.calls(200)
    figures = interleave(
        {
            "few": lambda: 10 * asyncio.run(delivery(100, events)),
            "many": lambda: asyncio.run(delivery(1000, events)),
        },
        options.rounds // 2,
    )
    what = "one event to the last of 1,000 subscribers, against 10x 100"
    return Comparison("S4", what, "us", TARGET_FLAT).row(figures["many"], figures["few"])


def flat(options: Options) -> Row:
    """Compare reads and writes in a store of a million keys with those in one of a thousand."""
    small, large = 1000, options.calls(1_000_000)
    stores = {size: filled(size) for size in (small, large)}
    runs = {str(size): lambda pairs=pairs, size=size: cost(pairs, size) for size, pairs in stores.items()}  # type: ignore[misc]
    figures = interleave(runs, options.rounds)
    what = f"a read and a write among {large:,} keys, against {small:,}"
    return Comparison("S5", what, "us", TARGET_FLAT).row(figures[str(large)], figures[str(small)])


def filled(size: int) -> SqliteKeyValue:
    """Return a store in memory with `size` keys: what is compared is the work, not the disk."""
    pairs = SqliteKeyValue(Store(None, KEY_VALUE_SCHEMA))
    for start in range(0, size, 10_000):
        waiting = [pairs.put("bench", f"k{number}", b'{"n":1}') for number in range(start, min(size, start + 10_000))]
        waiting[-1].result()
    return pairs


def cost(pairs: SqliteKeyValue, size: int, times: int = 3000) -> float:
    """Return the microseconds that a write and a read of keys all over the store take."""
    begin = time.perf_counter()
    for number in range(times):
        key = f"k{number * 7919 % size}"
        pairs.put("bench", key, b'{"n":2}')
        pairs.get("bench", key)
    pairs.count("bench").result()
    return (time.perf_counter() - begin) / times * 1e6


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_state", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls, keys and rounds")
    print(table(run(Options(quick=parser.parse_args().quick))))


if __name__ == "__main__":
    main()
