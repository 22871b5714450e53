"""What happened to a queue: the records that the torture writes and the oracle checks. Pure.

All times are seconds of one monotonic clock, which on Linux every process shares.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate


@dataclass(frozen=True)
class Run:
    """One execution as its worker logged it: begin, end (None: it did not get there), and whether it raised."""

    job: int
    attempt: int
    pid: int
    begin: float
    end: float | None = None
    failed: bool = False
    id: str = ""


@dataclass(frozen=True)
class Kill:
    """A kill, between `begin` and `end`. `pid` is the worker whose runs it ended; None: those of all workers."""

    begin: float
    end: float
    pid: int | None = None


@dataclass(frozen=True)
class QueueLimits:
    """The limits of a queue: jobs at once, seconds until the first retry, failures until a job is dead."""

    limit: int = 1
    backoff: float = 0.005
    attempts: int = 4


@dataclass
class History:
    """What was sent, answered and run, who was killed when, and what the queue itself says at the end.

    `sent` and `acked` are the first times by job; `receipts` all the ids that a job's key was answered with. `quiet`
    are the spans in which nothing can be asked of the queue: it was being killed or paused, or the machine stood still.
    In the spans of `full` jobs took so long that a slot without one was empty, not between two jobs.
    """

    limits: dict[str, QueueLimits] = field(default_factory=dict)
    queue_of: dict[int, str] = field(default_factory=dict)
    group_of: dict[int, str] = field(default_factory=dict)
    sent: dict[int, float] = field(default_factory=dict)
    acked: dict[int, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    receipts: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    dead: set[int] = field(default_factory=set)
    pending: set[int] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    quiet: list[tuple[float, float]] = field(default_factory=list)
    full: list[tuple[float, float]] = field(default_factory=list)
    figures: dict[str, dict[str, int]] = field(default_factory=dict)

    def limits_of(self, job: int) -> QueueLimits:
        """Return the limits of the job's queue; of a job that was never sent, the least."""
        return self.limits.get(self.queue_of.get(job, ""), QueueLimits())

    def by_job(self) -> dict[int, list[Run]]:
        """Return the runs of each job in the order in which they began."""
        found: dict[int, list[Run]] = defaultdict(list)
        for run in sorted(self.runs, key=lambda run: run.begin):
            found[run.job].append(run)
        return found


class KillTimes:
    """The kills, by time."""

    def __init__(self, kills: Iterable[Kill]) -> None:
        of_all = sorted((kill.begin, kill.end) for kill in kills if kill.pid is None)
        # They follow one another, so both lists are sorted.
        self._begins = [begin for begin, _ in of_all]
        self._ends = [end for _, end in of_all]
        self._of_worker = {kill.pid: kill for kill in kills if kill.pid is not None}

    def count(self, since: float, until: float) -> int:
        """Return how many kills of all workers touch the span."""
        return max(0, bisect_right(self._begins, until) - bisect_left(self._ends, since))

    def since_last(self, moment: float) -> float:
        """Return how long before `moment` the last kill of all workers was over; infinity for never."""
        earlier = bisect_right(self._ends, moment)
        return moment - self._ends[earlier - 1] if earlier else float("inf")

    def of_worker(self, run: Run, until: float) -> bool:
        """Whether a kill of its own ended the worker of a run, before `until` and not before the run began."""
        kill = self._of_worker.get(run.pid)
        return kill is not None and kill.end >= run.begin and kill.begin <= until

    def end_of(self, run: Run) -> float:
        """Return when a run was over at the latest: at its end, or when its worker had been killed."""
        if run.end is not None:
            return run.end
        later = bisect_left(self._ends, run.begin)
        own = self._of_worker.get(run.pid)
        return min([*self._ends[later : later + 1], *([own.end] if own and own.end >= run.begin else [])], default=1e99)


class Level:
    """A count over time, from its changes (moment, by how many)."""

    def __init__(self, changes: Iterable[tuple[float, int]]) -> None:
        # At the same moment, ends come before begins.
        ordered = sorted(changes)
        self._times = [moment for moment, _ in ordered]
        self._counts = list(accumulate(change for _, change in ordered))

    def most(self, since: float = float("-inf"), until: float = float("inf")) -> int:
        """Return the largest count in a span, 0 for none."""
        first, last = bisect_right(self._times, since) - 1, bisect_right(self._times, until)
        return max(self._counts[max(0, first) : last], default=0)


def running(history: History, deaths: KillTimes, queue: str) -> Level:
    """Return how many jobs of a queue ran at each moment."""
    runs = [run for run in history.runs if history.queue_of.get(run.job) == queue]
    return Level([change for run in runs for change in ((run.begin, 1), (deaths.end_of(run), -1))])
