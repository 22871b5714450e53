"""Tracing: what it costs at the default sampling and at 100 %. `python -m benchmarks.b_trace [--quick]`.

Minimal ends, the same three workers in every setup: one of them takes the feed and only counts. What it costs a worker
to keep what it gets is that worker's. The part of the calls whose spans arrived is printed too: over the pace of the
feed new traces are not begun.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
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


@dataclass
class Traced:
    """The engine with two minimal ends and a worker that takes the feed as `feed` says, or not at all."""

    feed: dict[str, Any] | None
    flood: int = 0  # spans a second that another worker offers
    shares: list[float] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    def run(self, load: Load) -> Sample:
        """Start `iii start` in a new project, let the caller finish, return its figures."""
        with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder, placed(load.placement) as cpu:
            report, counts = Path(folder, "report"), Path(folder, "counts")
            os.mkfifo(report)
            tables = [
                worker_table(
                    "taker", "taker.py", [], {"feed": json.dumps(self.feed) if self.feed else "", "counts": str(counts)}
                ),
                worker_table("callee", None, [*program("callee"), str(cpu)], {}),
                worker_table("caller", None, [*program("caller"), *caller_arguments(report, load, cpu)], {}),
            ]
            if self.flood:
                command = [sys.executable, str(ENDS / "flood.py"), str(self.flood)]
                tables.insert(1, worker_table("flood", None, command, {}))
            after = 'after = ["taker"]\n'
            text = f'[engine]\nlisten = "off"\n{"".join(tables[:-2])}{tables[-2]}{after}{tables[-1]}{after}'
            Path(folder, "iii.toml").write_text(text, encoding="utf-8")
            with engine(Path(folder), "start") as process:
                sample = await_report(report, process)
            if counts.exists():
                told = json.loads(counts.read_text(encoding="utf-8"))
                self.shares.append(told["spans"] / load.calls)
                self.dropped.append(told["dropped"])
            return sample


def run(options: Options) -> list[Row]:
    """Compare throughput at 64 in flight, and the wait of a single caller."""
    off, default, full = Traced(None), Traced(DEFAULT), Traced(FULL)
    setups = {"off": off, "default": default, "full": full}
    many = rounds_of(setups, Load(WINDOW, options.calls(300_000)), options.rounds)
    print(f"share of the calls with a span at 100 %, {WINDOW} in flight: {max(full.shares):.0%}", file=sys.stderr)
    full.shares.clear()
    one = rounds_of(setups, Load(1, options.calls(20_000)), options.rounds)
    print(f"share of the calls with a span at 100 %, 1 in flight: {max(full.shares):.0%}", file=sys.stderr)
    rows = [flooded(options)]
    for name, target in (("default", TARGET_DEFAULT), ("full", TARGET_FULL)):
        rate = Comparison("T1", f"tracing {name}, {WINDOW} in flight, against off", "calls/s", target, False)
        rows.append(rate.row(rate_of(many[name]), rate_of(many["off"])))
        cpu = Comparison("T1", f"engine CPU, tracing {name}, {WINDOW} in flight, against off", "µs/call", None)
        rows.append(cpu.row(cpu_of(many[name]), cpu_of(many["off"])))
        wait = Comparison("T2", f"tracing {name}, 1 in flight, against off", "µs p50", None)
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
