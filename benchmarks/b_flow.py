"""Flows: what a durable step, a wake-up and a parked run cost. `python -m benchmarks.b_flow [--quick]`.

Five local steps are compared with five bare durable commits and with DBOS on SQLite, on the same disk, in the same
rounds; steps at once with `state::set` through the same engine. `--parked` and `--due` measure so many runs by
themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.b6 import Peer
from benchmarks.b_queue import bare, folder
from benchmarks.b_state import read_report
from benchmarks.environment import python_of_peers
from benchmarks.harness import Comparison, Load, Options, Row, interleave, number
from benchmarks.report import table
from benchmarks.setups import PATIENCE, engine, worker_table
from cli.client.connection import Connection, connect
from iii.errors import IIIError
from stdlib_workers.flow.model import SLEEP, WAIT, Entry, EntryState, Run, State
from stdlib_workers.flow.schema import SCHEMA, insert_run, write_entry
from stdlib_workers.storage import Store

TARGET_BARE, TARGET_DBOS, TARGET_SETS, TARGET_RSS = 5.0, 0.5, 0.4, 1.5
TARGET_P50_MS, TARGET_P99_MS = 5.0, 50.0
STEPS = 5
DBOS = "DBOS on SQLite"
# Rows that one transaction of a store to measure with has, and runs that are woken in it one after the other.
ROWS, WOKEN = 10_000, 300
HEAD = '[engine]\nlisten = "off"\n[workers.flow]\n'


def run(options: Options) -> list[Row]:
    """Return every comparison."""
    runs = options.calls(500)
    python = python_of_peers()
    setups: dict[str, Callable[[], dict[str, float]]] = {
        "bare": lambda: {"five_us": STEPS * 1e6 / bare(1, options.calls(500))},
        "flow": lambda: through_engine(runs),
    }
    if python is not None:
        setups["dbos"] = lambda: {"five_us": dbos(python, runs)}
    figures = interleave(setups, max(3, options.rounds // 2))

    def of(setup: str, figure: str) -> list[float]:
        return [each[figure] for each in figures[setup]]

    five = of("flow", "five_us")
    rows = [
        Comparison("F1", f"a run of {STEPS} local steps, against so many bare commits", "us", TARGET_BARE).row(
            five, of("bare", "five_us")
        )
    ]
    if python is not None:
        rows.append(Comparison("F2", f"the same, against {DBOS}", "us", TARGET_DBOS).row(five, of("dbos", "five_us")))
    limits = (("F4", "wake_p50_ms", TARGET_P50_MS), ("F5", "wake_p99_ms", TARGET_P99_MS))
    rows += [
        Comparison("F3", "steps, 64 runs at once, against state::set", "a second", TARGET_SETS, False).row(
            of("flow", "steps_per_s"), of("flow", "sets_per_s")
        ),
        *(
            Comparison(name, f"{figure.replace('_', ' ')}, idle, against the target", "ms", 1.0).row(
                of("flow", figure), [target] * len(figures["flow"])
            )
            for name, figure, target in limits
        ),
    ]
    full, empty = parked(options.calls(100_000)), parked(0)
    rss = Comparison("F6", f"memory with {options.calls(100_000):,} parked runs, against none", "MiB", TARGET_RSS)
    return [*rows, rss.row([full["rss_mib"]], [empty["rss_mib"]])]


def through_engine(runs: int) -> dict[str, Any]:
    """Return the figures of `ends/flow_caller.py` in a project of its own."""
    with folder() as made:
        report = made / "report"
        os.mkfifo(report)
        caller = worker_table("caller", "flow_caller.py", (), {"report": str(report), "runs": runs})
        caller = caller.replace("[workers.caller]", '[workers.caller]\nafter = ["flow", "bodies", "state"]', 1)
        bodies = worker_table("bodies", "flow_bodies.py", (), {})
        (made / "iii.toml").write_text(f"{HEAD}[workers.state]\n{bodies}{caller}", encoding="utf-8")
        with engine(made, "start"):
            return read_report(report)


def dbos(python: Path, runs: int) -> float:
    """Return the median of a workflow of five steps in microseconds."""
    with folder() as made:
        return Peer(python, "dbos_steps.py", (str(made),)).run(Load(1, runs)).p50_us


def parked(count: int) -> dict[str, float]:
    """Start an engine over `count` parked runs; return its figures, `rss_mib` those of the flow worker.

    Half of them wait for an event, half for a time that is far away.
    """
    with folder() as made:
        bodies = worker_table("bodies", "flow_bodies.py", (), {})
        (made / "iii.toml").write_text(HEAD + bodies, encoding="utf-8")
        database = made / ".iii" / "flow.db"
        database.parent.mkdir()
        fill(database, count)
        begin = time.perf_counter()
        with engine(made, "start"), answering(made) as connection:
            figures = {"ready_ms": (time.perf_counter() - begin) * 1000, "file_mib": database.stat().st_size / 2**20}
            workers = connection.call("engine::workers::list")["workers"]
            process = psutil.Process(next(each["pid"] for each in workers if each["name"] == "flow"))
            figures["rss_mib"] = process.memory_info().rss / 2**20
            before = process.cpu_times()
            time.sleep(1)  # nothing is due
            after = process.cpu_times()
            figures["idle_cpu_ms"] = (after.user + after.system - before.user - before.system) * 1000
            times = sorted(wake(connection, f"r{number}") for number in range(0, min(count, 2 * WOKEN), 2))
            if times:
                figures |= {"woken_p50_ms": times[len(times) // 2], "woken_p99_ms": times[len(times) * 99 // 100]}
            return figures


def due(count: int) -> dict[str, float]:
    """Start an engine over `count` runs whose time has come, and send others their events while those go on."""
    with folder() as made:
        bodies = worker_table("bodies", "flow_bodies.py", (), {})
        (made / "iii.toml").write_text(HEAD + bodies, encoding="utf-8")
        (made / ".iii").mkdir()
        fill(made / ".iii" / "flow.db", 2 * count, due=round(time.time() * 1000))
        begin = time.perf_counter()
        with engine(made, "start"), answering(made) as connection:
            times: list[float] = []
            query = {"function_id": "bench::sleep", "state": ["parked", "queued"], "limit": 1}
            while connection.call("flow::list", query)["runs"]:
                times.append(wake(connection, f"r{2 * (count - 1 - len(times))}"))
            seconds = time.perf_counter() - begin
    times.sort()
    late = {"woken_p50_ms": times[len(times) // 2], "woken_p99_ms": times[len(times) * 99 // 100]}
    return {"seconds": seconds, "events": len(times), **late}


def wake(connection: Connection, run_id: str) -> float:
    """Send a run its event; return the milliseconds to its end."""
    begin = time.perf_counter()
    connection.call("flow::signal", {"run": run_id, "event": "go"})
    connection.call("flow::result", {"run": run_id})
    return (time.perf_counter() - begin) * 1000


@contextmanager
def answering(project: Path) -> Iterator[Connection]:
    """Connect to the engine of a project as soon as its flows are bound."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            run = json.loads((project / ".iii" / "run" / "engine.json").read_text(encoding="utf-8"))
            with connect(run["socket"]) as connection:
                connection.call("flow::start", {"function_id": "bench::five", "payload": {"number": 1}, "wait": True})
                yield connection
                return
        except (OSError, ValueError, IIIError):
            if time.monotonic() > give_up:
                raise
        time.sleep(0.005)


def fill(database: Path, count: int, due: int | None = None) -> None:
    """Make a database of parked runs, `r0` and so on: even ones wait for an event, odd ones for `due`."""
    store = Store(database, SCHEMA)
    now = round(time.time() * 1000)
    far = now + 365 * 86_400_000 if due is None else due
    for start in range(0, count, ROWS):
        store.run(partial(_insert, range(start, min(count, start + ROWS)), now, far)).result()
    store.close()


def _insert(numbers: range, now: int, due: int, connection: sqlite3.Connection) -> None:
    for index in numbers:
        waits = index % 2 == 0
        name, data = ("wait", b'{"number":1}') if waits else ("sleep", b'{"until":%d.0}' % (due // 1000))
        trace = f"00-{index:032x}-{index + 1:016x}-01"
        run = Run(0, f"r{index}", f"bench::{name}", None, None, None, trace, now, State.PARKED, 1, steps=1, size=20)
        run.due = None if waits else due
        insert_run(connection, run, data)
        step = ("go", WAIT) if waits else (name, SLEEP)
        entry = Entry(run.seq, step[0], "", 1, step[1], EntryState.OPEN, due=run.due, started=now)
        entry.options = b'{"events":["go"]}' if waits else None
        write_entry(connection, entry)


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_flow", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs and rounds")
    parser.add_argument("--parked", type=int, help="measure only what so many parked runs cost, beside none")
    parser.add_argument("--due", type=int, help="measure only how so many runs go on whose time comes at once")
    words = parser.parse_args()
    if words.due is not None:
        print(
            f"{words.due:,} runs due: " + ", ".join(f"{name} {number(value)}" for name, value in due(words.due).items())
        )
    elif words.parked is None:
        print(table(run(Options(quick=words.quick))))
    for count in (0, words.parked) if words.parked is not None else ():
        figures = parked(count)
        print(f"{count:,} parked runs: " + ", ".join(f"{name} {number(value)}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
