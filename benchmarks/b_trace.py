"""Tracing: what it costs at the default sampling and at 100 %.

Run as `python -m benchmarks.b_trace [--quick]`. The ends are minimal, and the same three workers are there in every
setup. With `taker` one of them takes the feed and only counts: that is the cost of the engine. With `observability` it
is the standard worker, which stores what it gets: that is what a project pays. Without tracing the third worker is
there as well, and takes nothing. Over the pace of the feed new traces are not begun; the share of the calls that got a
span is printed too. A run at 64 in flight is seconds long, because the first 10,000 spans are recorded faster than they
can be taken: the warm-up has to outlast them.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Comparison, Load, Options, Row, Sample, cpu_of, p50_of, placed, rate_of, rounds_of
from benchmarks.native import program
from benchmarks.report import table
from benchmarks.setups import ENDS, await_report, caller_arguments, engine, worker_table

WINDOW = 64
# The default of the standard worker, and everything.
DEFAULT: dict[str, Any] = {"sampling": {"max_traces_per_second": 100}, "max_batch": 500, "window_ms": 100}
FULL: dict[str, Any] = {"sampling": {"default": 1.0}, "max_batch": 500, "window_ms": 100}
# Calls per second over those without tracing, and p50 over p50: 10 us more is a quarter of a short call.
TARGET_DEFAULT, TARGET_FULL, TARGET_FLOOD = 0.97, 0.85, 2.0
FLOOD = 100_000  # spans a second
# Calls at 64 in flight, quick or not: the warm-up, a fifth of them, has to be longer than a burst of spans.
CALLS = 600_000
# The config of the observability worker: nothing, its defaults, everything.
STORING: dict[str, dict[str, Any]] = {
    "off": {"enabled": False},
    "default": {},
    "full": {"sampling_ratio": 1.0},
}


@dataclass
class Traced:
    """The engine with two minimal ends and a worker that takes the feed as `feed` says, or not at all."""

    feed: dict[str, Any] | None
    flood: int = 0  # spans a second that another worker offers
    shares: list[float] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    def run(self, load: Load) -> Sample:
        """Run a new project, return the caller's figures."""
        with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder:
            counts = Path(folder, "counts")
            config = {"feed": json.dumps(self.feed) if self.feed else "", "counts": str(counts)}
            tables = worker_table("taker", "taker.py", [], config)
            if self.flood:
                command = [sys.executable, str(ENDS / "flood.py"), str(self.flood)]
                tables += worker_table("flood", None, command, {})
            sample = run_beside("taker", tables, load, Path(folder))
            if counts.exists():
                told = json.loads(counts.read_text(encoding="utf-8"))
                self.shares.append(told["spans"] / load.made)
                self.dropped.append(told["dropped"])
            return sample


@dataclass
class Stored:
    """The engine with two minimal ends and the observability worker with this config."""

    config: dict[str, Any]
    shares: list[float] = field(default_factory=list)

    def run(self, load: Load) -> Sample:
        """Run a new project, return the caller's figures."""
        with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder:
            config = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.config.items())
            table = f"[workers.observability]\n[workers.observability.config]\nprometheus = false\n{config}"
            sample = run_beside("observability", table, load, Path(folder))
            with closing(sqlite3.connect(Path(folder, ".iii", "observability.db"))) as database:
                spans: int = database.execute("SELECT coalesce(max(id), 0) FROM spans").fetchone()[0]
            self.shares.append(spans / load.made)
            return sample


def run_beside(observer: str, tables: str, load: Load, folder: Path) -> Sample:
    """Run `iii start` with these workers and two ends that start after the observer; let the caller finish."""
    with placed(load.placement) as cpu:
        report = folder / "report"
        os.mkfifo(report)
        after = f'after = ["{observer}"]\n'
        callee = worker_table("callee", None, [*program("callee"), str(cpu)], {})
        caller = worker_table("caller", None, [*program("caller"), *caller_arguments(report, load, cpu)], {})
        text = f'[engine]\nlisten = "off"\n{tables}{callee}{after}{caller}{after}'
        (folder / "iii.toml").write_text(text, encoding="utf-8")
        with engine(folder, "start") as process:
            return await_report(report, process)


def run(options: Options) -> list[Row]:
    """Compare throughput at 64 in flight, and the wait of a single caller."""
    taken = {"off": Traced(None), "default": Traced(DEFAULT), "full": Traced(FULL)}
    stored = {name: Stored(config) for name, config in STORING.items()}
    rows = [flooded(options)]
    for number, (observer, setups) in enumerate({"taker": taken, "observability": stored}.items(), start=1):
        many = rounds_of(setups, Load(WINDOW, CALLS), options.rounds)
        share = max(setups["full"].shares)
        print(f"{observer}: {share:.0%} of the calls have a span at 100 %, {WINDOW} in flight", file=sys.stderr)
        one = rounds_of(setups, Load(1, options.calls(20_000)), options.rounds)
        for name, target in (("default", TARGET_DEFAULT), ("full", TARGET_FULL)):
            what = f"{observer}, tracing {name}"
            rate = Comparison(f"T{number}", f"{what}, {WINDOW} in flight, against off", "calls/s", target, False)
            rows.append(rate.row(rate_of(many[name]), rate_of(many["off"])))
            cpu = Comparison(f"T{number}", f"engine CPU, {what}, {WINDOW} in flight, against off", "µs/call", None)
            rows.append(cpu.row(cpu_of(many[name]), cpu_of(many["off"])))
            wait = Comparison(f"T{number}", f"{what}, 1 in flight, against off", "µs p50", None)
            rows.append(wait.row(p50_of(one[name]), p50_of(one["off"])))
    return rows


def flooded(options: Options) -> Row:
    """Compare the slowest calls while another worker offers far more spans than anybody takes."""
    flood = Traced(FULL, FLOOD)
    figures = rounds_of({"quiet": Traced(FULL), "flooded": flood}, Load(WINDOW, options.calls(150_000)), options.rounds)
    print(f"dropped of the flood: {max(flood.dropped)} spans", file=sys.stderr)
    slow = Comparison("T3", f"{FLOOD:,} spans/s offered, {WINDOW} in flight, against none", "µs p99", TARGET_FLOOD)
    p99 = {name: [sample.p99_us for sample in samples] for name, samples in figures.items()}
    return slow.row(p99["flooded"], p99["quiet"])


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_trace", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls and rounds")
    print(table(run(Options(quick=parser.parse_args().quick))))


if __name__ == "__main__":
    main()
