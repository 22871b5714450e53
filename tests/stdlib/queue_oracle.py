"""Checks a history of the queue against its numbered invariants. Pure: a history in, a list of violations out."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

# A call that was on its way to its worker when the queue was killed begins so much later at most, in seconds.
ON_ITS_WAY = 0.1


@dataclass(frozen=True)
class Run:
    """One execution as its worker saw it: begin, end (None: it never came to its end), and whether it raised."""

    job: int
    attempt: int
    pid: int
    begin: float
    end: float | None = None
    failed: bool = False


@dataclass
class History:
    """What was sent, acknowledged and run, and who was killed when; times are of one monotonic clock."""

    sent: set[int] = field(default_factory=set)
    acked: set[int] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    pending: set[int] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    # Kills of everything (engine, queue worker) and of single workers, by pid.
    kills: list[float] = field(default_factory=list)
    worker_kills: dict[int, float] = field(default_factory=dict)
    group_of: dict[int, str] = field(default_factory=dict)
    concurrency: int = 0


def violations(history: History) -> list[str]:
    """Return one line for each broken invariant; the number in front is the specification's."""
    by_job: dict[int, list[Run]] = defaultdict(list)
    for run in sorted(history.runs, key=lambda run: run.begin):
        by_job[run.job].append(run)
    done = {job for job, runs in by_job.items() if any(run.end is not None and not run.failed for run in runs)}
    return [
        *(
            f"1: job {job} was acknowledged and is nowhere"
            for job in history.acked - done - history.dead - history.pending
        ),
        *(f"2: job {job} was never sent" for job in set(by_job) - history.sent),
        *(line for runs in by_job.values() for line in _attempts(runs)),
        *(line for runs in by_job.values() for line in _duplicates(history, runs)),
        *_order(history, by_job),
        *_concurrency(history),
    ]


def _attempts(runs: list[Run]) -> list[str]:
    numbers = [run.attempt for run in runs]
    # An attempt that was written down and never reached a worker leaves a gap; none may come twice or fall back.
    return [] if numbers == sorted(set(numbers)) else [f"4: job {runs[0].job} has attempts {numbers}"]


def _duplicates(history: History, runs: list[Run]) -> list[str]:
    return [
        f"5: job {later.job} ran again as attempt {later.attempt} for no reason"
        for earlier, later in pairwise(runs)
        if not earlier.failed and not _was_stopped(history, earlier, later.begin)
    ]


def _was_stopped(history: History, run: Run, until: float) -> bool:
    if run.begin <= history.worker_kills.get(run.pid, -1.0) <= until:
        return True
    return any(run.begin - ON_ITS_WAY <= kill <= until for kill in history.kills)


def duplicates(history: History) -> int:
    """Return how many executions were repeats."""
    return len(history.runs) - len({run.job for run in history.runs})


def _order(history: History, by_job: dict[int, list[Run]]) -> list[str]:
    groups: dict[str, list[Run]] = defaultdict(list)
    for job, runs in by_job.items():
        if job in history.group_of:
            groups[history.group_of[job]] += runs
    found: list[str] = []
    for group, runs in groups.items():
        runs.sort(key=lambda run: run.begin)
        for earlier, later in pairwise(runs):
            if later.job < earlier.job:
                found.append(f"7: group {group} began {later.job} after {earlier.job}")
            if _end_of(history, earlier) > later.begin:
                found.append(f"7: group {group} ran {earlier.job} and {later.job} at the same time")
    return found


def _end_of(history: History, run: Run) -> float:
    """Return when a run was over at the latest: at its end, or when what ran it was killed."""
    if run.end is not None:
        return run.end
    stops = [kill for kill in (*history.kills, history.worker_kills.get(run.pid, -1.0)) if kill >= run.begin]
    return min(stops, default=float("inf"))


def _concurrency(history: History) -> list[str]:
    marks = [(run.begin, 1) for run in history.runs] + [(_end_of(history, run), -1) for run in history.runs]
    now = most = 0
    for _, change in sorted(marks):
        now += change
        most = max(most, now)
    return [f"10: {most} jobs ran at once, the limit is {history.concurrency}"] if most > history.concurrency else []
