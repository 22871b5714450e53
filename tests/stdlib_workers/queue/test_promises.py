"""What each key of flow control promises, over random arrivals and kills, judged by the times at which things happened.

A kill leaves the bytes of the database and nothing else: what was not committed is gone, what ran is repeated.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from iii import InvocationError
from stdlib_workers.queue.delivery import recover
from stdlib_workers.queue.limits import Throttle
from stdlib_workers.queue.model import Delivery
from tests.stdlib_workers.queue.test_flow_control import Simulated, most_in_windows
from tests.stdlib_workers.queue.test_life import database

# A slow run has `III_QUEUE_HISTORIES=5000`.
HISTORIES = int(os.environ.get("III_QUEUE_HISTORIES", "100"))
# A pause in milliseconds, what happens then, and to which key. `lost`: an enqueue whose transaction a kill ends.
Arrivals = list[tuple[int, str, str]]
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 7, 50, 99, 100, 101, 250]),
        st.sampled_from(["send", "send", "send", "end", "lost", "kill"]),
        st.sampled_from("abc"),
    ),
    max_size=50,
)


class Mortal(Simulated):
    """A queue whose process is killed now and then."""

    def __init__(self, **config: Any) -> None:
        super().__init__(database(), **config)
        self.kills = 0

    def kill(self) -> None:
        """Go on with what is on the disk."""
        disk = self.connection.serialize()
        self.connection.close()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.deserialize(disk)
        self.running.clear()
        recover(self.connection, {self.queue.id: self.queue}, self.now)
        self.kills += 1

    def lose(self, payload: Any) -> None:
        """Die in the middle of the transaction that takes a job in and starts what can start."""
        running, starts = list(self.running), list(self.starts)
        self.connection.execute("BEGIN")
        try:
            self.send(payload)
        except InvocationError:
            pass
        else:
            self.start()
        self.connection.execute("ROLLBACK")
        self.running, self.starts = running, starts
        self.kill()

    def until(self, end: int) -> None:
        """Start what becomes due, at the moment at which it does."""
        self.start()
        while self.due is not None and self.due <= end:
            self.now = max(self.now, self.due)
            self.start()
        self.now = end

    def live(self, arrivals: Arrivals, *, timed: bool = True) -> Iterable[str]:
        """Do what happens, and yield the key of each job that arrives."""
        for pause, what, who in arrivals:
            if timed:
                self.until(self.now + pause)
            if what == "send":
                yield who
            elif what == "lost":
                self.lose({"who": who})
            elif what == "kill":
                self.kill()
            elif self.running:
                self.end(self.running[pause % len(self.running)])
            self.start()
        event(f"kills: {min(self.kills, 4)}{'' if self.kills < 4 else ' or more'}")

    def close(self) -> None:
        """Let everything come to its end, whatever has happened."""
        self.drain()
        self.connection.close()


def who_of(delivery: Delivery) -> str:
    return str(orjson.loads(delivery.data)["who"])


@settings(max_examples=HISTORIES, deadline=None)
@given(ARRIVALS, st.integers(1, 3), st.sampled_from([50, 100]), st.booleans())
def test_rate_limit_accepts_at_most_the_limit_in_any_window(
    arrivals: Arrivals, limit: int, period: int, by_field: bool
) -> None:
    field = {"field": "who"} if by_field else {}
    queue = Mortal(rate_limit={"limit": limit, "period_ms": period, **field})
    accepted: defaultdict[str, list[int]] = defaultdict(list)
    for number, who in enumerate(queue.live(arrivals)):
        times = accepted[who if by_field else ""]
        is_free = sum(queue.now - at <= period for at in times) < limit
        if not is_free:
            with pytest.raises(InvocationError, match="rate_limited") as refused:
                queue.send({"who": who}, key=f"k{number}")
            assert refused.value.details["retry_after_ms"] == times[-limit] + period + 1 - queue.now
            continue
        receipt = queue.send({"who": who}, key=f"k{number}")  # neither a kill nor what it has ended takes a place
        times.append(queue.now)
        queue.kill()
        assert queue.send({"who": who}, key=f"k{number}") == receipt  # a repeat is free, also behind a kill
    for times in accepted.values():
        assert all(last - first > period for first, last in zip(times, times[limit:], strict=False))
    queue.close()


@settings(max_examples=HISTORIES, deadline=None)
@given(ARRIVALS, st.integers(1, 3), st.sampled_from([7, 100]), st.integers(1, 3), st.booleans())
def test_throttle_starts_at_most_its_share_in_any_window_repeats_included(
    arrivals: Arrivals, limit: int, period: int, burst: int, by_field: bool
) -> None:
    throttle = {"limit": limit, "period_ms": period, "burst": burst}
    queue = Mortal(throttle={**throttle, **({"field": "who"} if by_field else {})}, concurrency=1000)
    for who in queue.live(arrivals):
        queue.send({"who": who})
    queue.close()
    times: defaultdict[str, list[int]] = defaultdict(list)
    for at, delivery in queue.starts:
        times[who_of(delivery) if by_field else ""].append(at)
    for each in times.values():
        most_in_windows(each, Throttle(**throttle))


@settings(max_examples=HISTORIES, deadline=None)
@given(ARRIVALS, st.integers(1, 3))
def test_concurrency_key_runs_as_many_as_it_may_of_each_key_and_no_more(arrivals: Arrivals, limit: int) -> None:
    queue = Mortal(concurrency_key={"field": "who", "limit": limit}, concurrency=1000)

    def check() -> None:
        running = Counter(map(who_of, queue.running))
        rows = queue.connection.execute("SELECT data FROM jobs").fetchall()
        waiting = Counter(orjson.loads(data)["who"] for (data,) in rows)
        assert running == {who: min(limit, count) for who, count in waiting.items()}

    for who in queue.live(arrivals):
        check()
        queue.send({"who": who})
        queue.start()
        check()
    queue.close()


@settings(max_examples=HISTORIES, deadline=None)
@given(ARRIVALS, st.sampled_from([1, 100]), st.sampled_from([None, 150]), st.sampled_from(["last", "all"]))
def test_debounce_keeps_one_waiting_job_a_key_due_in_time_with_what_it_must_hold(
    arrivals: Arrivals, period: int, max_wait: int | None, keep: str
) -> None:
    latest = {} if max_wait is None else {"max_wait_ms": max_wait}
    queue = Mortal(debounce={"period_ms": period, "field": "who", "keep": keep, **latest}, concurrency=1000)
    # By key what waits: receipt, and when each of its payloads came; by receipt what runs, or ran when it was killed.
    waiting: dict[str, tuple[str, list[tuple[int, int]]]] = {}
    begun: dict[str, list[int]] = {}
    seen = 0

    def check() -> None:
        nonlocal seen
        for at, delivery in queue.starts[seen:]:
            payload = orjson.loads(delivery.data)
            payloads = payload if keep == "all" else [payload]
            numbers = [each["number"] for each in payloads]
            if delivery.id not in begun:
                receipt, came = waiting.pop(payloads[0]["who"])
                due = came[-1][0] + period
                assert (delivery.id, at) == (receipt, due if max_wait is None else min(due, came[0][0] + max_wait))
                begun[delivery.id] = [number for _, number in came][0 if keep == "all" else -1 :]
            assert numbers == begun[delivery.id]
        seen = len(queue.starts)

    # A lost enqueue must leave no trace: it has no number, so a payload of it would be seen.
    for number, who in enumerate(queue.live(arrivals)):
        check()
        receipt = queue.send({"who": who, "number": number})
        former = waiting.setdefault(who, (receipt, []))
        assert receipt == former[0]
        former[1].append((queue.now, number))
        assert len(waiting) == queue.connection.execute("SELECT count(*) FROM jobs WHERE attempt = 0").fetchone()[0]
    queue.until(queue.now + 10_000)
    check()
    assert not waiting
    queue.close()


@settings(max_examples=HISTORIES, deadline=None)
@given(ARRIVALS, st.integers(1, 4), st.sampled_from([1, 100, 300]), st.booleans())
def test_batch_is_called_when_it_is_full_or_old_and_not_later(
    arrivals: Arrivals, size: int, max_wait: int, by_field: bool
) -> None:
    batch = {"max_size": size, "max_wait_ms": max_wait, **({"field": "who"} if by_field else {})}
    queue = Mortal(batch=batch, concurrency=1000)
    created: dict[str, int] = {}

    def check() -> None:
        for at, delivery in queue.starts:
            jobs = delivery.batch
            assert 1 <= len(jobs) <= size
            assert len({who_of(job) for job in jobs}) == 1 or not by_field
            # What was in a batch when its process was killed has waited enough.
            is_repeated = any(job.attempt > 1 for job in jobs)
            assert len(jobs) == size or is_repeated or at >= min(created[job.id] for job in jobs) + max_wait
        queue.starts.clear()
        rows = queue.connection.execute("SELECT id, data, attempt FROM jobs WHERE state != 2").fetchall()
        waiting: defaultdict[str, list[int]] = defaultdict(list)
        for id, data, attempt in rows:
            assert attempt == 0
            waiting[orjson.loads(data)["who"] if by_field else ""].append(created[id])
        for times in waiting.values():
            assert len(times) < size
            assert min(times) + max_wait > queue.now

    for who in queue.live(arrivals):
        check()
        created[queue.send({"who": who})] = queue.now
        queue.start()
        check()
    queue.close()


@settings(max_examples=HISTORIES, deadline=None)
@given(ARRIVALS, st.integers(1, 3), ARRIVALS)
def test_fair_field_lets_a_newcomer_wait_for_at_most_one_job_of_each_busy_key(
    arrivals: Arrivals, concurrency: int, later: Arrivals
) -> None:
    queue = Mortal(fair_field="who", concurrency=concurrency)
    for who in queue.live(arrivals):
        queue.send({"who": who})
    queue.start()
    before = len(queue.starts)
    newcomer = queue.send({"who": "new"})
    for who in queue.live(later, timed=False):
        queue.send({"who": who})  # what comes later has no turn before it either
    queue.start()
    while newcomer not in queue.ids():
        queue.end(queue.running[0])
        queue.start()
    between = queue.starts[before : queue.ids().index(newcomer)]
    assert max(Counter(who_of(delivery) for _, delivery in between).values(), default=0) <= 1
    queue.close()
