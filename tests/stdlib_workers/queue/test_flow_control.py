"""Flow control in the database, by a clock that only the test moves: every promise over random arrivals and ends."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from iii import InvocationError
from stdlib_workers.attempts import DONE, Outcome, Verdict
from stdlib_workers.queue import admin, catalog, lanes
from stdlib_workers.queue.delivery import advance, recover, release, settle
from stdlib_workers.queue.limits import ConcurrencyKey, RateLimit, Throttle
from stdlib_workers.queue.model import Delivery, NewJob, QueueConfig, State, config_from
from stdlib_workers.queue.new_jobs import enqueue
from stdlib_workers.queue.policy import verdicts_of_batch
from stdlib_workers.queue.schema import CHECKSUM
from tests.stdlib_workers.queue.test_life import FAILED, INTERRUPTED, KILLED, MISSING, RETURNED, database


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = database()
    yield opened
    opened.close()


class Simulated:
    """One queue, the jobs that were sent, and the attempts under way."""

    def __init__(self, connection: sqlite3.Connection, **config: Any) -> None:
        self.connection = connection
        self.config = config
        self.queue = catalog.define(connection, "jobs", config_from({"backoff_ms": 100, **config}))[0]
        self.now = 1_000_000
        self.number = 0
        self.running: list[Delivery] = []
        self.starts: list[tuple[int, Delivery]] = []
        self.due: int | None = None

    def send(self, payload: Any = None, **fields: Any) -> str:
        self.number += 1
        keys = self.queue.config.keys_of("jobs::run", None, payload)
        new = NewJob(f"job-{self.number:04}", "jobs::run", orjson.dumps(payload), keys=keys, **fields)
        return enqueue(self.connection, self.queue, new, self.now)

    def start(self, missing: frozenset[Any] = frozenset()) -> list[Delivery]:
        """Start what can start now, as the worker does until nothing more is due at once."""
        begun: list[Delivery] = []
        while True:
            started = advance(self.connection, self.queue, "run", self.now, missing)
            begun += started.deliveries
            self.due = started.due
            if started.due is None or started.due > self.now:
                break
        self.running += begun
        self.starts += [(self.now, delivery) for delivery in begun]
        return begun

    def end(self, delivery: Delivery, verdict: Verdict = DONE) -> None:
        self.running.remove(delivery)
        for job, job_verdict in verdicts_of_batch(delivery, verdict):
            settle(self.connection, job, job_verdict, self.now, 0.5)
        if self.queue.config.has_keys:
            lanes.ended(self.connection, self.queue, delivery.keys, self.now)

    def end_all(self) -> None:
        for delivery in list(self.running):
            self.end(delivery)

    def drain(self) -> None:
        """Let everything come to its end; fails when something waits that nothing will ever start."""
        while release(self.connection, "jobs::run"):
            pass
        for _ in range(5000):
            self.start()
            left = self.connection.execute("SELECT count(*) FROM jobs WHERE state != 5").fetchone()[0]
            if not left:
                return
            if self.running:
                self.end_all()
            else:
                assert self.due is not None, self.rows()
                self.now = max(self.now + 1, self.due)
        raise AssertionError(self.rows())

    def rows(self) -> list[Any]:
        return self.connection.execute("SELECT id, state, due, lane, grp, suspect, alone FROM jobs").fetchall()

    def ids(self) -> list[str]:
        """Return the jobs in the order in which they were started."""
        return [job.id for _, delivery in self.starts for job in delivery.batch or (delivery,)]


def most_in_windows(times: list[int], throttle: Throttle) -> None:
    """Check that in any window W at most burst + W * limit / period starts lie."""
    for first in range(len(times)):
        for last in range(first, len(times)):
            width = times[last] - times[first]
            assert last - first + 1 <= throttle.burst + width * throttle.limit / throttle.period_ms, times


# Times between two events, and which keys the jobs have
ARRIVALS = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 7, 50, 99, 100, 101, 250]), st.sampled_from(["a", "b", None])), max_size=60
)


@given(ARRIVALS, st.integers(1, 4), st.sampled_from([1, 100]), st.booleans())
def test_no_window_accepts_more_than_the_limit_and_the_refused_are_told_when(
    arrivals: list[tuple[int, str | None]], limit: int, period: int, by_field: bool
) -> None:
    connection = database()
    field = {"field": "who.id"} if by_field else {}
    queue = Simulated(connection, rate_limit={"limit": limit, "period_ms": period, **field})
    accepted: defaultdict[str | None, list[int]] = defaultdict(list)
    for pause, who in arrivals:
        queue.now += pause
        payload = {"who": {"id": who}} if who else {}
        key = who if by_field else None
        recent = [at for at in accepted[key] if queue.now - at <= period]
        if len(recent) < limit:
            queue.send(payload)
            accepted[key].append(queue.now)
            continue
        with pytest.raises(InvocationError, match="rate_limited") as caught:
            queue.send(payload)
        wait = caught.value.details["retry_after_ms"]
        assert queue.now + wait == recent[0] + period + 1  # not a moment longer than it must be
    for times in accepted.values():
        for first, last in zip(times, times[limit:], strict=False):
            assert last - first > period
    kept = connection.execute("SELECT count(*) FROM accepted").fetchone()[0]
    assert kept <= limit * len(accepted)
    lanes.forget(connection, queue.now + period + 1)
    assert connection.execute("SELECT count(*) FROM accepted").fetchone()[0] == 0
    connection.close()


@given(ARRIVALS, st.integers(1, 5), st.sampled_from([1, 7, 100]), st.integers(1, 3), st.booleans())
def test_no_window_starts_more_than_the_throttle_says_and_nothing_waits_longer_than_it_must(
    arrivals: list[tuple[int, str | None]], limit: int, period: int, burst: int, by_field: bool
) -> None:
    connection = database()
    field = {"field": "who"} if by_field else {}
    throttle = {"limit": limit, "period_ms": period, "burst": burst}
    queue = Simulated(connection, throttle={**throttle, **field}, concurrency=1000)
    for pause, who in arrivals:
        end = queue.now + pause
        while queue.due is not None and queue.due <= end:
            queue.now = max(queue.now, queue.due)
            queue.start()
        queue.now = end
        queue.send({"who": who} if who else {})
        queue.start()
    while queue.due is not None:
        assert queue.due > queue.now
        queue.now = queue.due
        assert queue.start()  # the timer never fires for nothing
    assert len(queue.starts) == len(arrivals)
    times: defaultdict[str | None, list[int]] = defaultdict(list)
    for at, delivery in queue.starts:
        times[delivery.keys.throttle].append(at)
    for each in times.values():
        most_in_windows(each, Throttle(**throttle))
    connection.close()


def test_retries_are_starts_too_and_a_clock_that_was_set_back_stops_nothing(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection, throttle={"limit": 1, "period_ms": 10_000}, max_retries=2, backoff_ms=1)
    queue.send()
    [delivery] = queue.start()
    queue.end(delivery, FAILED)
    assert queue.start() == []
    queue.now += 1
    assert queue.start() == []
    queue.now -= 86_400_000
    lanes.review_all(connection, queue.queue, queue.now)  # as every start does
    queue.send()
    queue.start()
    assert queue.due is not None
    assert queue.due - queue.now <= 10_000
    queue.now = queue.due
    assert len(queue.start()) == 1


KEYS = ("throttle", "concurrency_key", "fair_field", "batch")
THROTTLES = st.sampled_from([{"limit": 1, "period_ms": 100}, {"limit": 2, "period_ms": 100, "burst": 2}])
CONFIGS = st.fixed_dictionaries(
    {"concurrency": st.integers(1, 4), "max_retries": st.just(2)},
    optional={
        "throttle": THROTTLES | st.builds(lambda throttle: {**throttle, "field": "t"}, THROTTLES),
        "concurrency_key": st.builds(lambda limit: {"field": "c", "limit": limit}, st.integers(1, 2)),
        "fair_field": st.just("f"),
    },
)
BATCHES = st.fixed_dictionaries(
    {
        "concurrency": st.integers(1, 3),
        "max_retries": st.just(2),
        "batch": st.builds(lambda size: {"max_size": size, "max_wait_ms": 300, "field": "c"}, st.integers(1, 4)),
    },
    optional={
        "throttle": THROTTLES | st.builds(lambda throttle: {**throttle, "field": "c"}, THROTTLES),
        "concurrency_key": st.builds(lambda limit: {"field": "c", "limit": limit}, st.integers(1, 2)),
        "fair_field": st.just("c"),
    },
)
FIFO = st.builds(
    lambda config: (
        {name: value for name, value in config.items() if name != "fair_field"}
        | {"type": "fifo", "message_group_field": "g"}
    ),
    CONFIGS,
)


class FlowHistories(RuleBasedStateMachine):
    """Any history of a queue with keys: the limits hold, nothing is lost, and nothing waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = database()
        self.done: Counter[str] = Counter()
        self.removed: set[str] = set()
        self.sent: set[str] = set()

    @initialize(config=CONFIGS | BATCHES | FIFO)
    def begin(self, config: dict[str, Any]) -> None:
        self.sim = Simulated(self.connection, **config)
        self.is_changed = False

    @rule(
        keys=st.lists(st.tuples(*map(st.sampled_from, ("xy", "pq", "mn", "ab"))), min_size=1, max_size=4),
        delay=st.sampled_from([0, 0, 0, 500]),
        priority=st.sampled_from([0, 0, 1]),
        starts=st.booleans(),
    )
    def send(self, keys: list[tuple[str, ...]], delay: int, priority: int, starts: bool) -> None:
        for c, t, f, g in keys:
            group = g if self.sim.queue.config.type == "fifo" else None
            payload = {"c": c, "t": t, "f": f}
            self.sent.add(self.sim.send(payload, delay_ms=delay, priority=priority, group=group))
        if starts:
            self.sim.start()

    @rule(missing=st.sampled_from([False, False, True]))
    def start_some(self, missing: bool) -> None:
        self.sim.start(frozenset({(None, "jobs::run")}) if missing else frozenset())

    @precondition(lambda self: self.sim.running)
    @rule(
        pick=st.integers(0, 9),
        verdict=st.sampled_from(
            [DONE, DONE, Verdict(Outcome.DONE, result={"failed": [0]}), FAILED, RETURNED, INTERRUPTED, MISSING, KILLED]
        ),
    )
    def end_one(self, pick: int, verdict: Verdict) -> None:
        delivery = self.sim.running[pick % len(self.sim.running)]
        before = {job.id for job in delivery.batch or (delivery,)}
        self.sim.end(delivery, verdict)
        stored = {row[0] for row in self.connection.execute("SELECT id FROM jobs")}
        self.done.update(before - stored)

    @rule(step=st.sampled_from([1, 49, 100, 3000]))
    def wait(self, step: int) -> None:
        self.sim.now += step

    @rule(kind=st.sampled_from(["crash", "find", "redrive", "crash", "purge"]))
    def disturb(self, kind: str) -> None:
        if kind == "crash":
            recover(self.connection, {self.sim.queue.id: self.sim.queue}, self.sim.now)
            self.sim.running.clear()
        elif kind == "find":
            release(self.connection, "jobs::run")
        elif kind == "redrive":
            admin.redrive_all(self.connection, self.sim.queue, self.sim.now)
        else:
            before = {row[0] for row in self.connection.execute("SELECT id FROM jobs")}
            admin.purge(self.connection, self.sim.queue)
            self.removed |= before - {row[0] for row in self.connection.execute("SELECT id FROM jobs")}

    @rule(number=st.integers(1, 20))
    def cancel(self, number: int) -> None:
        if admin.cancel(self.connection, self.sim.queue, f"job-{number:04}", self.sim.now):
            self.removed.add(f"job-{number:04}")

    @rule(limit=st.integers(1, 3), keeps=st.booleans())
    def change_limits(self, limit: int, keeps: bool) -> None:
        config = dict(self.sim.config)
        for key in ("throttle", "concurrency_key"):
            if key in config and keeps:
                config[key] = {**config[key], "limit": limit}
            elif not keeps:
                config.pop(key, None)
        self.sim.queue = catalog.define(self.connection, "jobs", config_from({"backoff_ms": 100, **config}))[0]
        lanes.review_all(self.connection, self.sim.queue, self.sim.now)
        self.is_changed = True

    @invariant()
    def the_limits_hold(self) -> None:
        if not hasattr(self, "sim"):
            return
        config = self.sim.queue.config
        assert len(self.sim.running) <= config.concurrency
        running = self.connection.execute("SELECT count(*) FROM jobs WHERE state = 2 AND batched = 0").fetchone()[0]
        assert running == len(self.sim.running)
        if config.concurrency_key is not None and not self.is_changed:
            of_key = Counter(delivery.keys.concurrency for delivery in self.sim.running)
            assert max(of_key.values(), default=0) <= config.concurrency_key.limit
        if config.throttle is not None and not self.is_changed:
            times: defaultdict[str | None, list[int]] = defaultdict(list)
            for at, delivery in self.sim.starts:
                times[delivery.keys.throttle].append(at)
            for each in times.values():
                most_in_windows(each, config.throttle)
        if config.batch is not None:
            for delivery in self.sim.running:
                assert 1 <= len(delivery.batch) <= config.batch.max_size
                assert len({job.keys.lane for job in delivery.batch}) == 1

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        stored = {row[0] for row in self.connection.execute("SELECT id FROM jobs")}
        assert stored | set(self.done) | self.removed == self.sent
        assert not stored & set(self.done)
        assert not [id for id, count in self.done.items() if count > 1]

    @invariant()
    def every_row_stands_where_it_was_put(self) -> None:
        assert self.connection.execute(f"SELECT 1 FROM jobs WHERE {CHECKSUM} IS NULL").fetchone() is None

    @invariant()
    def what_waits_has_a_reason(self) -> None:
        if not hasattr(self, "sim") or self.sim.queue.config.type == "fifo":
            return
        headless = self.connection.execute(
            "SELECT 1 FROM jobs AS b WHERE state = 3 AND NOT EXISTS (SELECT 1 FROM jobs WHERE lane = b.lane "
            "AND priority = b.priority AND state IN (0, 6, 7) AND suspect = 0 AND alone = 0)"
        ).fetchone()
        assert headless is None

    def teardown(self) -> None:
        if hasattr(self, "sim"):
            self.sim.drain()
        self.connection.close()


TestFlowHistories = FlowHistories.TestCase
TestFlowHistories.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_37_keys_whose_jobs_die_or_are_purged_or_canceled_lose_no_slot(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection, concurrency_key={"field": "who", "limit": 2}, max_retries=1)
    for _ in range(7):
        queue.send({"who": "a"})
    first, _ = queue.start()
    queue.end(first, FAILED)  # dead
    assert len(queue.start()) == 1
    assert admin.cancel(connection, queue.queue, "job-0004", queue.now)
    recover(connection, {queue.queue.id: queue.queue}, queue.now)
    queue.running.clear()
    assert len(queue.start()) == 2
    assert lanes.free_slots(connection, queue.queue, '"a"') == 0
    assert admin.purge(connection, queue.queue) == 3
    assert admin.redrive_all(connection, queue.queue, queue.now) == 1
    assert queue.start() == []
    queue.end(queue.running[0])
    assert [delivery.id for delivery in queue.start()] == [first.id]
    queue.end_all()
    assert lanes.free_slots(connection, queue.queue, '"a"') == 2


def test_38_jobs_behind_a_full_key_are_in_nobodys_way(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection, concurrency_key={"field": "who", "limit": 1})
    for _ in range(300):
        queue.send({"who": "full"})
    [running] = queue.start()
    states = Counter(row[0] for row in connection.execute("SELECT state FROM jobs"))
    assert states == {State.RUNNING: 1, State.LIMITED: 1, State.BEHIND: 298}
    queue.send({"who": "other"})
    assert [delivery.id for delivery in queue.start()] == ["job-0301"]
    queue.end(running)
    assert [delivery.id for delivery in queue.start()] == ["job-0002"]
    rows = admin.peek(connection, queue.queue, 0, 10)
    assert [row["waits_for"] for row in rows[:3]] == [None, "concurrency_key", "concurrency_key"]


def test_37_a_pause_before_a_retry_holds_no_slot(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection, concurrency_key={"field": "who", "limit": 1})
    for _ in range(2):
        queue.send({"who": "a"})
    [first] = queue.start()
    queue.end(first, FAILED)
    [second] = queue.start()
    assert second.id == "job-0002"
    queue.now += 100
    assert queue.start() == []
    queue.end(second)
    assert [delivery.id for delivery in queue.start()] == ["job-0001"]


def test_35_a_debounced_job_runs_with_the_last_payload_and_the_next_opens_another(
    connection: sqlite3.Connection,
) -> None:
    queue = Simulated(connection, debounce={"period_ms": 100, "max_wait_ms": 250, "field": "doc"})
    receipts = []
    for number in range(4):
        receipts.append(queue.send({"doc": "a", "number": number}))
        queue.now += 60
        assert queue.start() == []
        assert queue.due == min(queue.now + 40, 1_000_250)
    other = queue.send({"doc": "b"})
    queue.now = 1_000_250
    [waiting, _] = admin.peek(connection, queue.queue, 0, 9)
    assert waiting["waits_for"] == "debounce"
    [started] = queue.start()  # 250 ms after the first, not 100 after the last
    assert (started.id, orjson.loads(started.data)["number"]) == ("job-0001", 3)
    assert receipts == ["job-0001"] * 4
    assert queue.send({"doc": "a", "number": 5}) == "job-0006"  # it runs: the next opens another
    queue.end(started, FAILED)
    assert queue.send({"doc": "a", "number": 6}) == "job-0006"  # not the one that waits for its retry
    queue.now += 120
    assert {(job.id, orjson.loads(job.data).get("number")) for job in queue.start()} == {
        (other, None),
        ("job-0001", 3),
        ("job-0006", 6),
    }


@given(ARRIVALS, st.sampled_from([1, 100]), st.sampled_from([None, 150]))
def test_35_every_debounced_payload_is_the_newest_and_due_in_time(
    arrivals: list[tuple[int, str | None]], period: int, max_wait: int | None
) -> None:
    connection = database()
    latest = {} if max_wait is None else {"max_wait_ms": max_wait}
    queue = Simulated(connection, debounce={"period_ms": period, "field": "who", "keep": "all", **latest})
    waiting: defaultdict[str | None, list[tuple[int, int]]] = defaultdict(list)

    def until(end: int) -> None:
        while queue.due is not None and queue.due <= end:
            queue.now = max(queue.now, queue.due)
            for delivery in queue.start():
                sent = orjson.loads(delivery.data)
                who = sent[0]["who"]
                mine = waiting.pop(who)
                assert [each["number"] for each in sent] == [number for _, number in mine]  # none lost, none twice
                queue.end(delivery)
                due = mine[-1][0] + period
                assert queue.now == (due if max_wait is None else min(due, mine[0][0] + max_wait))
        queue.now = end

    for number, (pause, who) in enumerate(arrivals):
        until(queue.now + pause)
        queue.send({"who": who, "number": number})
        waiting[who].append((queue.now, number))
        queue.start()
        assert connection.execute("SELECT count(*) FROM jobs WHERE state != 2").fetchone() == (len(waiting),)
    until(queue.now + 10_000)
    assert not waiting
    connection.close()


def test_a_full_debounced_job_runs_at_once_and_nothing_is_dropped(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection, debounce={"period_ms": 100, "keep": "all"})
    for _ in range(3):
        queue.send("x" * 400_000)
    [full] = queue.start()
    assert len(orjson.loads(full.data)) == 2
    queue.now += 100
    [rest] = queue.start()
    assert len(orjson.loads(rest.data)) == 1


def test_39_poison_in_a_batch_of_a_hundred_leaves_99_done_and_one_dead(connection: sqlite3.Connection) -> None:
    batch = {"max_size": 100, "max_wait_ms": 1000}
    queue = Simulated(connection, batch=batch, max_retries=2, concurrency=3)
    poison = [queue.send(number) for number in range(100)][41]
    [whole] = queue.start()
    assert [orjson.loads(job.data) for job in whole.batch] == [*range(100)]
    queue.end(whole, FAILED)
    calls = 1
    for _ in range(1000):
        for delivery in queue.start():
            calls += 1
            assert len(delivery.batch) == 1
            queue.end(delivery, FAILED if delivery.id == poison else DONE)
        queue.now += 50
    [letter] = admin.letters(connection, [queue.queue], 0, 9)
    assert letter["id"] == poison
    assert len(letter["attempts"]) == 3  # with the others, and twice alone
    assert calls == 1 + 99 + 2
    assert admin.counts(connection, queue.queue)["delivered"] == 99


def test_a_batch_starts_when_it_is_full_or_old_and_fails_by_index(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection, batch={"max_size": 3, "max_wait_ms": 1000, "field": "to"}, max_retries=5)
    for to in "abaa":
        queue.send({"to": to})
    [full] = queue.start()
    assert [job.id for job in full.batch] == ["job-0001", "job-0003", "job-0004"]
    assert queue.due == 1_001_000
    assert [row["waits_for"] for row in admin.peek(connection, queue.queue, 1, 1)] == ["batch"]
    queue.now += 1000
    [old] = queue.start()
    assert [job.id for job in old.batch] == ["job-0002"]
    queue.end(old)
    queue.end(full, Verdict(Outcome.DONE, result={"failed": [1]}))
    queue.now += 100
    assert queue.start() == []  # the one that failed joins the next batch
    queue.now += 1000
    [again] = queue.start()
    assert [(job.id, job.spent) for job in again.batch] == [("job-0003", 1)]


@pytest.mark.parametrize("failed", [[0, 1], "all", [2], [True], [-1]])
def test_a_batch_that_fails_as_a_whole_spends_nothing(connection: sqlite3.Connection, failed: Any) -> None:
    queue = Simulated(connection, batch={"max_size": 2, "max_wait_ms": 1000}, max_retries=1)
    for _ in range(2):
        queue.send()
    [delivery] = queue.start()
    queue.end(delivery, Verdict(Outcome.DONE, result={"failed": failed}))
    queue.now += 1000
    assert [(len(each.batch), each.spent) for each in queue.start()] == [(1, 0), (1, 0)]


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), st.integers(1, 3))
def test_a_newcomer_waits_for_at_most_one_job_of_each_busy_key(keys: list[str], concurrency: int) -> None:
    connection = database()
    queue = Simulated(connection, fair_field="who", concurrency=concurrency)
    for who in keys:
        queue.send({"who": who})
    queue.start()
    before = len(queue.starts)
    newcomer = queue.send({"who": "new"})
    for _ in range(50):
        if newcomer in queue.ids():
            break
        queue.end(queue.running[0])
        queue.start()
    between = queue.starts[before : queue.ids().index(newcomer)]
    counted = Counter(delivery.keys.fair for _, delivery in between)
    assert max(counted.values(), default=0) <= 1
    queue.drain()
    connection.close()


def test_priority_goes_before_turns_and_limits_hold_up_only_their_own(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection, fair_field="who", concurrency_key={"field": "region", "limit": 1}, concurrency=1)
    for who, region, priority in (("a", "x", 0), ("a", "y", 0), ("b", "x", 0), ("a", "x", 5)):
        queue.send({"who": who, "region": region}, priority=priority)
    order = []
    while begun := queue.start():
        order += [delivery.id for delivery in begun]
        queue.end_all()
    assert order == ["job-0004", "job-0001", "job-0003", "job-0002"]


def test_a_changed_field_counts_for_later_jobs_and_a_raised_limit_at_once(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection, concurrency_key={"field": "a", "limit": 1})
    for _ in range(3):
        queue.send({"a": 1, "b": 2})
    assert len(queue.start()) == 1

    def redefine(**config: Any) -> None:
        queue.queue = catalog.define(connection, "jobs", config_from(config))[0]
        assert lanes.review(connection, queue.queue, lanes.BEGIN, queue.now) is None

    redefine(concurrency_key={"field": "b", "limit": 1})
    queue.send({"a": 1, "b": 2})
    assert [delivery.id for delivery in queue.start()] == ["job-0004"]  # under the new field nothing runs
    redefine(concurrency_key={"field": "b", "limit": 2})
    assert [delivery.id for delivery in queue.start()] == ["job-0002"]
    redefine()
    assert [delivery.id for delivery in queue.start()] == ["job-0003"]
    queue.end_all()
    assert queue.rows() == []


def test_a_queue_that_gets_keys_while_jobs_wait_lets_those_run_as_before(connection: sqlite3.Connection) -> None:
    queue = Simulated(connection)
    for _ in range(3):
        queue.send({"who": "a"})
    queue.queue = catalog.define(
        connection, "jobs", QueueConfig(concurrency_key=ConcurrencyKey("who", 1), rate_limit=RateLimit(9, 9))
    )[0]
    queue.send({"who": "a"})
    queue.send({"who": "a"})
    assert [delivery.id for delivery in queue.start()] == ["job-0001", "job-0002", "job-0003", "job-0004"]


def test_a_damaged_throttle_waits_and_a_damaged_job_does_not_stop_its_lane(
    connection: sqlite3.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = Simulated(connection, throttle={"limit": 1, "period_ms": 100}, concurrency_key={"field": "who", "limit": 1})
    for _ in range(3):
        queue.send({"who": "a"})
    [first] = queue.start()
    connection.execute("UPDATE throttles SET until = 5")
    queue.end(first)
    assert queue.start() == []
    assert "the throttle of all jobs is damaged" in capsys.readouterr().err
    connection.execute("UPDATE jobs SET lane = 'other', data = x'31' WHERE id = 'job-0002'")
    queue.now += 200
    assert [delivery.id for delivery in queue.start()] == ["job-0003"]
    assert [letter["id"] for letter in admin.letters(connection, [queue.queue], 0, 9)] == ["job-0002"]
