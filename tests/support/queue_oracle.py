"""Checks a history of the queue against its numbered invariants. Pure: a history in, a list of violations out.

The number in front of a violation is the invariant's. The invariants about time (8 and 10) are in
`queue_oracle_time`.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from tests.support.queue_history import History, KillTimes, Run
from tests.support.queue_oracle_time import concurrency, leaks, retries

# A call that was on its way to its worker when the queue was killed begins at most so many seconds later.
ON_ITS_WAY = 0.1
# A producer that waits for a processor notes that its job was taken at most so many seconds later.
NOTED_LATE = 1.0
# Deliveries that the engine's side interrupted spend nothing, up to this many.
INTERRUPTIONS = 20


def violations(history: History) -> list[str]:
    """Return one line for each broken invariant."""
    deaths, by_job = KillTimes(history.kills), history.by_job()
    done = {job for job, runs in by_job.items() if _has_succeeded(runs[-1]) and job not in history.dead}
    return [
        *_losses(history, by_job),
        *_inventions(history, by_job),
        *_endings(history, by_job),
        *(line for runs in by_job.values() for line in _attempts(history, deaths, runs)),
        *(line for runs in by_job.values() for line in _budget(history, deaths, runs)),
        *(f"4: job {job} is dead and has never run" for job in history.dead - by_job.keys()),
        *(line for runs in by_job.values() for line in _duplicates(deaths, runs)),
        *_too_many_repeats(history, by_job),
        *_order(history, deaths, by_job),
        *retries(history, deaths, by_job),
        *_keys(history),
        *concurrency(history, deaths),
        *leaks(history, deaths),
        *_figures(history, done),
    ]


def _has_succeeded(run: Run) -> bool:
    return run.end is not None and not run.failed


def _losses(history: History, by_job: dict[int, list[Run]]) -> list[str]:
    nowhere = history.acked.keys() - by_job.keys() - history.dead - history.pending
    done = {job for job, runs in by_job.items() if _has_succeeded(runs[-1])}
    return [
        *(f"1: job {job} was acknowledged and is nowhere" for job in nowhere),
        *(f"1: job {job} is dead and waits" for job in history.dead & history.pending),
        *(f"1: job {job} is done and dead" for job in done & history.dead),
        *(f"1: job {job} is done and waits" for job in done & history.pending),
    ]


def _inventions(history: History, by_job: dict[int, list[Run]]) -> list[str]:
    seen = by_job.keys() | history.dead | history.pending
    return [
        *(f"2: job {job} was never sent" for job in seen - history.sent.keys()),
        *(f"2: job {job} was refused and is there" for job in seen & history.refused),
    ]


def _endings(history: History, by_job: dict[int, list[Run]]) -> list[str]:
    gone = by_job.keys() - history.dead - history.pending
    failed = [job for job in gone if not _has_succeeded(by_job[job][-1])]
    return [f"3: job {job} is gone, and its last run did not succeed" for job in failed]


def _attempts(history: History, deaths: KillTimes, runs: list[Run]) -> list[str]:
    numbers = [run.attempt for run in runs]
    if numbers != sorted(set(numbers)):
        return [f"4: job {runs[0].job} has attempts {numbers}"]
    since, last = history.sent.get(runs[0].job, runs[0].begin) - NOTED_LATE, 0
    for run in runs:
        # An attempt that was written down and never reached a worker leaves a gap: the queue was killed meanwhile.
        if run.attempt - last - 1 > deaths.count(since, run.begin):
            return [f"4: job {run.job} has attempt {run.attempt} after {last}"]
        since, last = run.begin - ON_ITS_WAY, run.attempt
    return []


def _budget(history: History, deaths: KillTimes, runs: list[Run]) -> list[str]:
    job = runs[0].job
    budget = history.limits_of(job).attempts
    until = [*(run.begin for run in runs[1:]), float("inf")]
    spent = sum(run.failed or deaths.of_worker(run, end) for run, end in zip(runs, until, strict=True))
    # A failure that was not written down before the queue was killed has cost nothing.
    sure = sum(run.failed and not deaths.count(run.begin, end) for run, end in zip(runs, until, strict=True))
    found = []
    if sure > budget:
        found.append(f"4: job {job} failed {sure} times, its budget is {budget}")
    if len(runs) > budget + INTERRUPTIONS:
        found.append(f"4: job {job} was delivered {len(runs)} times")
    if job in history.dead and spent < budget and len(runs) < INTERRUPTIONS:
        found.append(f"4: job {job} is dead after {spent} failures of its own, its budget is {budget}")
    return found


def _duplicates(deaths: KillTimes, runs: list[Run]) -> list[str]:
    return [
        f"5: job {later.job} ran again as attempt {later.attempt} for no reason: process {earlier.pid} began it "
        f"{deaths.since_last(earlier.begin):.3f} s after the last death"
        for earlier, later in pairwise(runs)
        if not earlier.failed and not _was_stopped(deaths, earlier, later.begin)
    ]


def _was_stopped(deaths: KillTimes, run: Run, until: float) -> bool:
    return deaths.of_worker(run, until) or deaths.count(run.begin - ON_ITS_WAY, until) > 0


def repeats(by_job: dict[int, list[Run]]) -> int:
    """Return how many executions were repeats of one that had not failed."""
    return sum(not earlier.failed for runs in by_job.values() for earlier, _ in pairwise(runs))


def most_repeats(history: History) -> int:
    """Return how many repeats the kills can explain: each ended at most what all slots held."""
    return len(history.kills) * sum(limits.limit for limits in history.limits.values())


def _too_many_repeats(history: History, by_job: dict[int, list[Run]]) -> list[str]:
    found, most = repeats(by_job), most_repeats(history)
    if found > most:
        return [f"6: {found} repeats, the kills explain {most}"]
    return []


def _order(history: History, deaths: KillTimes, by_job: dict[int, list[Run]]) -> list[str]:
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
            if deaths.end_of(earlier) > later.begin:
                found.append(f"7: group {group} ran {earlier.job} and {later.job} at the same time")
    return found


def _keys(history: History) -> list[str]:
    ids: dict[int, set[str]] = defaultdict(set)
    for job, receipts in history.receipts.items():
        ids[job] |= receipts
    for run in history.runs:
        ids[run.job].add(run.id)
    return [f"9: the key of job {job} stands for {len(found)} jobs" for job, found in ids.items() if len(found) > 1]


def _figures(history: History, done: set[int]) -> list[str]:
    found = []
    for queue, figures in history.figures.items():
        counted = {
            "delivered": sum(history.queue_of.get(job) == queue for job in done),
            "dlq_depth": sum(history.queue_of.get(job) == queue for job in history.dead),
            "depth": sum(history.queue_of.get(job) == queue for job in history.pending),
        }
        found += [
            f"11: queue {queue} says {figures[name]} for {name}, it is {count}"
            for name, count in counted.items()
            if figures[name] != count
        ]
    return found
