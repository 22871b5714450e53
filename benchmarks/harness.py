"""Measure setups against each other: interleaved rounds, medians and spread, one ratio a row.

A round runs every setup once, in order, so that a machine that drifts drifts under all of them. What a setup
is lives in setups.py, what is compared in the modules b0 to b9, how it is shown in report.py.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar

Placement = Literal["free", "same", "split"]


@dataclass(frozen=True)
class Options:
    """What the command line asked for. `quick` takes fewer calls and rounds and records nothing."""

    quick: bool = False
    placements: Sequence[Placement] = ("free",)

    @property
    def rounds(self) -> int:
        """How often every setup runs; the first of them is a warm-up and not counted."""
        return 4 if self.quick else 8

    def calls(self, full: int) -> int:
        """How many calls a caller makes, given the figure of a full run."""
        return full // 10 if self.quick else full


@dataclass(frozen=True)
class Load:
    """What the caller does: `calls` calls of about `size` bytes, `window` of them in flight."""

    window: int
    calls: int
    size: int = 0
    placement: Placement = "free"

    @property
    def made(self) -> int:
        """How many calls the caller makes in all, with its warm-up."""
        return self.calls + self.calls // 5 + self.window


@dataclass(frozen=True)
class Sample:
    """One run of one setup. `relay_cpu_us` is the CPU time of what joins the ends, per call."""

    p50_us: float
    p99_us: float
    calls_per_s: float
    relay_cpu_us: float


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is the median over the rounds, `low` and `high` its extremes."""

    name: str
    what: str
    measured: str
    baseline: str
    ratio: float
    low: float
    high: float
    target: float | None
    smaller_is_better: bool

    @property
    def verdict(self) -> str:
        """`pass`, `miss`, or nothing where no target is set."""
        if self.target is None:
            return ""
        return "pass" if self.cost <= 1 else "miss"

    @property
    def cost(self) -> float:
        """The ratio over its target, turned so that more is worse; 0 where no target is set."""
        return self.cost_of(self.ratio)

    @property
    def least_cost(self) -> float:
        """The same of the best round: what a disturbed machine could still do."""
        return self.cost_of(self.low if self.smaller_is_better else self.high)

    def cost_of(self, ratio: float) -> float:
        """Turn a ratio into a cost."""
        if self.target is None:
            return 0.0
        return ratio / self.target if self.smaller_is_better else self.target / ratio


Figure = TypeVar("Figure")


class Setup(Protocol):
    """Something that runs a load from start to stop."""

    def run(self, load: Load) -> Sample:
        """Return the caller's figures."""


def rounds_of(setups: Mapping[str, Setup], load: Load, rounds: int) -> dict[str, list[Sample]]:
    """Put one load on every setup, interleaved."""
    return interleave({name: partial(setup.run, load) for name, setup in setups.items()}, rounds)


def interleave(setups: Mapping[str, Callable[[], Figure]], rounds: int) -> dict[str, list[Figure]]:
    """Run every setup once a round and return the figures of each, the first round left out."""
    figures: dict[str, list[Figure]] = {name: [] for name in setups}
    for turn in range(rounds):
        for name, run in setups.items():
            figure = run()
            if turn > 0:
                figures[name].append(figure)
    return figures


@dataclass(frozen=True)
class Comparison:
    """What a row says and how its ratio is judged."""

    name: str
    what: str
    unit: str
    target: float | None
    smaller_is_better: bool = True

    def row(self, measured: Sequence[float], baseline: Sequence[float]) -> Row:
        """Pair the figures round by round. Both sequences hold one figure a round, in the same order."""
        ratios = [a / b for a, b in zip(measured, baseline, strict=True)]
        return Row(
            name=self.name,
            what=self.what,
            measured=f"{number(statistics.median(measured))} {self.unit}",
            baseline=f"{number(statistics.median(baseline))} {self.unit}",
            ratio=statistics.median(ratios),
            low=min(ratios),
            high=max(ratios),
            target=self.target,
            smaller_is_better=self.smaller_is_better,
        )


def number(value: float) -> str:
    """Return three digits or all before the point, whichever is more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def p50_of(samples: Sequence[Sample]) -> list[float]:
    """The latency of one call in microseconds, a figure a round."""
    return [sample.p50_us for sample in samples]


def rate_of(samples: Sequence[Sample]) -> list[float]:
    """Calls per second, a figure a round."""
    return [sample.calls_per_s for sample in samples]


def cpu_of(samples: Sequence[Sample]) -> list[float]:
    """CPU time between the ends in microseconds a call, a figure a round."""
    return [sample.relay_cpu_us for sample in samples]


@contextmanager
def placed(placement: Placement) -> Iterator[int]:
    """Start children on the CPUs of a placement; yields the CPU for the ends, -1 for any.

    `same`: everything shares the first CPU. `split`: what joins the ends has the first, the ends the last.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if placement == "free" or len(cpus) < 2:
        yield -1
        return
    os.sched_setaffinity(0, {cpus[0]})
    try:
        yield cpus[0] if placement == "same" else cpus[-1]
    finally:
        os.sched_setaffinity(0, cpus)


def busy() -> float:
    """Share of the CPUs that was in use over the last minute, from the load average."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
