"""B10: neighbors: what a slow worker and a flooding one do to the slowest calls of the others."""

from __future__ import annotations

import shlex
import sys

from benchmarks.harness import Comparison, Load, Options, Row, Setup, rounds_of
from benchmarks.setups import ENDS, LAUNCHER, Engine

# p99 over the same engine's without the neighbor.
TARGET = 2.0
NEIGHBORS = {"slow": "a worker with 64 slow calls waiting", "flooding": "a worker that sends without pause"}


def run(options: Options) -> list[Row]:
    """Compare the p99 of one call in flight."""
    setups: dict[str, Setup] = {"quiet": Engine(), **{name: Engine(beside=beside(name)) for name in NEIGHBORS}}
    figures = rounds_of(setups, Load(1, options.calls(20_000)), options.rounds)
    quiet = [sample.p99_us for sample in figures["quiet"]]
    return [
        Comparison("B10", f"p99 beside {what}, against quiet", "µs", TARGET).row(
            [sample.p99_us for sample in figures[name]], quiet
        )
        for name, what in NEIGHBORS.items()
    ]


def beside(name: str) -> dict[str, str]:
    """Return the neighbor and what it runs."""
    return {name: shlex.join([sys.executable, str(LAUNCHER), str(ENDS / f"{name}.py")])}
