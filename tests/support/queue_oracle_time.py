"""The invariants of the queue that are about time: when a retry comes (8), and how many run at once (10). Pure.

Spans in which the queue cannot work (`Quiet`) are left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.support.queue_history import History, KillTimes, QueueLimits, Run, running

# The jitter of a retry, and how far from its time it may come, in seconds.
JITTER, EARLY, LATE = 0.2, 0.005, 0.25
# Slots may stand empty so long while there is work.
IDLE = 1.0


def retries(history: History, deaths: KillTimes, by_job: dict[int, list[Run]]) -> list[str]:
    """Return the retries that came before their time, or late although a slot was free."""
    levels = {queue: running(history, deaths, queue) for queue in history.limits}
    quiet = Quiet(history)
    found = []
    for runs in by_job.values():
        queue = history.queue_of.get(runs[0].job)
        if queue is None:
            continue
        for earlier, later, first, last in _failures(deaths, runs, history.limits[queue]):
            if later.begin < first - EARLY:
                found.append(f"8: job {later.job} was tried again {first - later.begin:.3f} s early")
            late = later.begin - last
            is_free = levels[queue].most(last, later.begin - EARLY) < history.limits[queue].limit
            if late > LATE and is_free and not quiet.touches(earlier.begin, later.begin):
                found.append(f"8: job {later.job} was tried again {late:.3f} s late")
    return found


def _failures(deaths: KillTimes, runs: list[Run], limits: QueueLimits) -> Iterator[tuple[Run, Run, float, float]]:
    """Yield each failed run, the one after it, and the span in which that was due."""
    sure = all_of = 0
    for earlier, later in pairwise(runs):
        is_known = not deaths.count(earlier.begin, later.begin)
        all_of += earlier.failed or deaths.of_worker(earlier, later.begin)
        sure += earlier.failed and is_known
        if earlier.failed and is_known and earlier.end is not None:
            yield (
                earlier,
                later,
                earlier.end + limits.backoff * 2 ** (sure - 1) * (1 - JITTER),
                earlier.end + limits.backoff * 2 ** (all_of - 1) * (1 + JITTER),
            )


class Quiet:
    """The spans in which nothing can be asked of the queue."""

    def __init__(self, history: History) -> None:
        spans = sorted([*history.quiet, *((kill.begin, kill.end) for kill in history.kills)])
        self.spans: list[tuple[float, float]] = []
        for begin, end in spans:
            if self.spans and begin <= self.spans[-1][1]:
                self.spans[-1] = (self.spans[-1][0], max(end, self.spans[-1][1]))
            else:
                self.spans.append((begin, end))
        self._begins = [begin for begin, _ in self.spans]

    def touches(self, since: float, until: float) -> bool:
        """Whether one of them touches the span."""
        found = bisect_right(self._begins, until)
        return found > 0 and self.spans[found - 1][1] >= since


def concurrency(history: History, deaths: KillTimes) -> list[str]:
    """Return the queues of which more ran at once than they may."""
    found = {queue: running(history, deaths, queue).most() for queue in history.limits}
    return [
        f"10: {most} jobs of {queue} ran at once, the limit is {history.limits[queue].limit}"
        for queue, most in found.items()
        if most > history.limits[queue].limit
    ]


def leaks(history: History, deaths: KillTimes) -> list[str]:
    """Return the spans in which slots stood empty for too long although there was work."""
    return [line for queue in history.limits for line in _leaks(history, deaths, queue)]


def _leaks(history: History, deaths: KillTimes, queue: str) -> list[str]:
    slots, short_since, found = Slots(history), None, []
    is_quiet, least = False, 1
    for moment, what, job in _moments(history, deaths, queue):
        slots.note(what, job)
        if short_since is not None and moment - short_since > IDLE:
            found.append(f"10: {queue} ran fewer than {least} for {moment - short_since:.1f} s while jobs were due")
            short_since = moment
        is_quiet ^= what == "quiet"
        least = {"full": history.limits[queue].limit, "full no more": 1}.get(what, least)
        if is_quiet or slots.running >= least or not slots.startable:
            short_since = None
        elif short_since is None:
            short_since = moment
    return found


def _moments(history: History, deaths: KillTimes, queue: str) -> list[tuple[float, str, int]]:
    ours = {job for job, name in history.queue_of.items() if name == queue}
    runs = [run for run in history.runs if run.job in ours]
    moments = [(moment, "acked", job) for job, moment in history.acked.items() if job in ours]
    moments += [(run.begin, "begin", run.job) for run in runs]
    moments += [(deaths.end_of(run), "end", run.job) for run in runs]
    moments += [(moment, "quiet", 0) for span in Quiet(history).spans for moment in span]
    for since, until in history.full:
        moments += [(since, "full", 0), (until, "full no more", 0)]
    return sorted(moments)


class Slots:
    """How many jobs run, and how many places could start one: a group is one place, so is a job without one."""

    def __init__(self, history: History) -> None:
        self._group_of = history.group_of
        self._waiting: dict[str | int, int] = defaultdict(int)
        self._busy: dict[str | int, int] = defaultdict(int)
        self._begun: set[int] = set()
        self.running = self.startable = 0

    def note(self, what: str, job: int) -> None:
        """Take one moment."""
        place = self._group_of.get(job, job)
        self.startable -= self._can_start(place)
        if what in ("begin", "end"):
            change = 1 if what == "begin" else -1
            self.running += change
            self._busy[place] += change
        if what in ("begin", "acked") and job not in self._begun:
            self._waiting[place] += 1 if what == "acked" else -1
        if what == "begin":
            self._begun.add(job)
        self.startable += self._can_start(place)

    def _can_start(self, place: str | int) -> bool:
        return self._waiting[place] > 0 and self._busy[place] <= 0
