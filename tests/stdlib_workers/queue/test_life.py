"""A job's life in the database: whatever happens in whatever order, the rows keep the invariants."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Set as AbstractSet
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stdlib_workers.attempts import DONE, Outcome, Verdict
from stdlib_workers.queue import admin, catalog
from stdlib_workers.queue.delivery import Target, advance, held_targets, recover, release, settle
from stdlib_workers.queue.model import LIFE, Delivery, Event, NewJob, Queue, QueueConfig, State
from stdlib_workers.queue.new_jobs import enqueue, forget_keys
from stdlib_workers.queue.policy import MAX_INTERRUPTIONS, blame
from stdlib_workers.queue.schema import TABLES

FAILED = Verdict(Outcome.FAILED, {"code": "invocation_failed", "message": "no"})
RETURNED = Verdict(Outcome.RETURNED, {"code": "worker_unavailable", "message": "down"}, delay_ms=1000)
KILLED = Verdict(Outcome.FAILED, {"code": "invocation_stopped", "message": "killed"}, killed=True)
INTERRUPTED = Verdict(Outcome.INTERRUPTED, {"code": "invocation_stopped", "message": "reload"})
MISSING = Verdict(Outcome.MISSING, {"code": "function_not_found", "message": "jobs::run"})


def database() -> sqlite3.Connection:
    """An empty database that refuses every move which is not in the table of life."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    moves = {(int(state), int(to)) for (state, _), targets in LIFE.items() for to in targets if to is not None}
    allowed = ", ".join(f"({before}, {after})" for before, after in sorted(moves))
    connection.executescript(
        "CREATE TRIGGER life BEFORE UPDATE OF state ON jobs WHEN (OLD.state, NEW.state) NOT IN "
        f"(VALUES {allowed}) BEGIN SELECT RAISE(ABORT, 'no such move'); END"
    )
    return connection


def queue_in(connection: sqlite3.Connection, name: str = "jobs", **config: Any) -> Queue:
    return catalog.define(connection, name, QueueConfig(**config))[0]


def claim(
    connection: sqlite3.Connection, queue: Queue, run: str, now: int, missing: AbstractSet[Target] = frozenset()
) -> list[Delivery]:
    return advance(connection, queue, run, now, missing).deliveries


def job(number: int, **fields: Any) -> NewJob:
    return NewJob(f"job-{number:03}", "jobs::run", b"{}", **fields)


@pytest.fixture
def connection() -> Any:
    opened = database()
    yield opened
    opened.close()


def test_a_job_runs_once_and_is_gone(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection)
    enqueue(connection, queue, job(1), 0)
    [delivery] = claim(connection, queue, "run", 5)
    assert (delivery.id, delivery.attempt, delivery.started) == ("job-001", 1, 5)
    assert claim(connection, queue, "run", 5) == []
    assert settle(connection, delivery, DONE, 6, 0.5) is None
    assert admin.counts(connection, queue) | {"delivered": 1, "depth": 0} == admin.counts(connection, queue)


def test_q06_a_late_result_of_an_old_attempt_changes_nothing(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection)
    enqueue(connection, queue, job(1), 0)
    [first] = claim(connection, queue, "run", 0)
    recover(connection, {queue.id: queue}, 1)
    [second] = claim(connection, queue, "run", 2)
    assert second.attempt == 2
    settle(connection, first, DONE, 3, 0.5)
    assert admin.counts(connection, queue)["running"] == 1
    assert admin.counts(connection, queue)["fenced"] == 1
    settle(connection, second, DONE, 4, 0.5)
    assert admin.counts(connection, queue)["delivered"] == 1


def test_q09_failures_back_off_and_end_in_the_dead_letters_with_their_story(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, max_retries=3, backoff_ms=1000)
    enqueue(connection, queue, job(1, traceparent="00-a-b-01"), 0)
    now, started = 0, []
    for _ in range(3):
        [delivery] = claim(connection, queue, "run", now)
        started.append(now)
        settle(connection, delivery, FAILED, now, 0.5)
        now = advance(connection, queue, "run", now).due or now
    assert started == [0, 1000, 3000]
    [letter] = admin.letters(connection, [queue], 0, 50)
    assert letter["error"] == "invocation_failed: no"
    assert [attempt["attempt"] for attempt in letter["attempts"]] == [1, 2, 3]
    assert (letter["retries"], letter["traceparent"]) == (3, "00-a-b-01")


def test_the_story_of_a_dead_letter_holds_no_secrets(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, max_retries=1)
    enqueue(connection, queue, job(1), 0)
    [delivery] = claim(connection, queue, "run", 0)
    error = {
        "code": "invocation_failed",
        "message": "no login with password=canary-1",
        "stacktrace": 'line 3\n  headers={"Authorization": "Bearer canary-2"}\nCookie: a=canary-3; b=canary-4',
        "details": {"api_key": "canary-5", "argv": ["tool", "--token", "canary-6"]},
    }
    settle(connection, delivery, Verdict(Outcome.FAILED, error), 0, 0.5)
    assert "canary" not in "\n".join(connection.iterdump())


@pytest.mark.parametrize("max_retries", [0, 1])
def test_zero_and_one_retries_both_mean_one_attempt(connection: sqlite3.Connection, max_retries: int) -> None:
    queue = queue_in(connection, max_retries=max_retries)
    enqueue(connection, queue, job(1), 0)
    [delivery] = claim(connection, queue, "run", 0)
    assert settle(connection, delivery, FAILED, 0, 0.5) is State.DEAD


def test_what_never_started_spends_nothing_and_gives_its_number_back(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, max_retries=1)
    enqueue(connection, queue, job(1), 0)
    for turn in range(30):
        [delivery] = claim(connection, queue, "run", turn * 1000)
        assert (delivery.attempt, delivery.spent) == (1, 0)
        settle(connection, delivery, RETURNED, turn * 1000, 0.5)


def test_interruptions_spend_nothing_but_are_counted(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, max_retries=1)
    enqueue(connection, queue, job(1), 0)
    for turn in range(MAX_INTERRUPTIONS):
        [delivery] = claim(connection, queue, "run", turn)
        assert delivery.attempt == turn + 1
        if turn % 2:
            settle(connection, delivery, INTERRUPTED, turn, 0.5)
        else:
            recover(connection, {queue.id: queue}, turn)
    assert admin.counts(connection, queue)["dlq_depth"] == 1


def test_jobs_of_a_missing_function_step_aside_and_come_back(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, concurrency=2)
    for number in range(600):
        enqueue(connection, queue, job(number), 0)
    other = NewJob("other", "other::run", b"{}")
    enqueue(connection, queue, other, 0)
    for delivery in claim(connection, queue, "run", 0):
        settle(connection, delivery, MISSING, 0, 0.5)
    assert [d.id for d in claim(connection, queue, "run", 0, {(None, "jobs::run")})] == ["other"]
    assert held_targets(connection) == {(None, "jobs::run")}
    assert admin.counts(connection, queue)["held"] == 600
    assert sum(iter(lambda: release(connection, "jobs::run"), 0)) == 600
    assert [d.id for d in claim(connection, queue, "run", 0)] == ["job-000"]


def test_q05_the_job_that_kills_workers_pays_and_those_beside_it_do_not(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, max_retries=2, backoff_ms=0)
    for number in range(4):
        enqueue(connection, queue, job(number), 0)
    poison, done = "job-002", 0
    for now in range(20):
        batch = claim(connection, queue, "run", now)
        died = any(delivery.id == poison for delivery in batch)
        for delivery in batch:
            verdict = blame(delivery, KILLED, is_shared=len(batch) > 1) if died else DONE
            done += settle(connection, delivery, verdict, now, 0.5) is None
    [letter] = admin.letters(connection, [queue], 0, 9)
    assert (letter["id"], done) == (poison, 3)
    assert [attempt["attempt"] for attempt in letter["attempts"]] == [1, 2, 3]


def test_a_possible_poison_message_whose_worker_survives_is_cleared(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, backoff_ms=0)
    enqueue(connection, queue, job(1), 0)
    shared_crash = Verdict(Outcome.SHARED_CRASH, KILLED.error)
    for verdict, possible_poison in ((shared_crash, 0), (FAILED, 1), (DONE, 0)):
        [delivery] = claim(connection, queue, "run", 0)
        assert delivery.possible_poison == possible_poison
        settle(connection, delivery, verdict, 0, 0.5)


def test_priority_goes_first_and_age_decides_between_equals(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection)
    for number, priority in enumerate([0, 5, 5, 9]):
        enqueue(connection, queue, job(number, priority=priority), 0)
    assert [d.id for d in claim(connection, queue, "run", 0)] == ["job-003", "job-001", "job-002", "job-000"]


def test_a_key_makes_one_job_for_its_window(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, key_window_ms=1000)
    assert enqueue(connection, queue, job(1, key="a"), 0) == "job-001"
    assert enqueue(connection, queue, job(2, key="a"), 5000) == "job-001"  # it still waits
    [delivery] = claim(connection, queue, "run", 5000)
    settle(connection, delivery, DONE, 5000, 0.5)
    assert enqueue(connection, queue, job(3, key="a"), 5000) == "job-003"
    [delivery] = claim(connection, queue, "run", 5000)
    settle(connection, delivery, DONE, 5000, 0.5)
    assert enqueue(connection, queue, job(4, key="a"), 5999) == "job-003"
    assert forget_keys(connection, 5999) == 0
    assert forget_keys(connection, 6000) == 1


def test_the_same_receipt_twice_is_one_job(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection)
    enqueue(connection, queue, job(1), 0)
    enqueue(connection, queue, job(1), 1)
    assert admin.counts(connection, queue)["depth"] == 1


def test_q08_a_blocked_group_waits_for_its_dead_head_and_others_do_not(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, type="fifo", message_group_field="g", max_retries=1, on_dead_letter="block")
    for number, group in enumerate("aab"):
        enqueue(connection, queue, job(number, group=group), 0)
    first, other = claim(connection, queue, "run", 0)
    settle(connection, first, FAILED, 0, 0.5)
    settle(connection, other, DONE, 0, 0.5)
    enqueue(connection, queue, job(4, group="a"), 0)
    assert claim(connection, queue, "run", 0) == []
    assert admin.redrive(connection, queue, "job-000", 1)
    [again] = claim(connection, queue, "run", 1)
    assert (again.id, again.attempt, again.spent) == ("job-000", 2, 0)
    settle(connection, again, FAILED, 1, 0.5)
    assert admin.discard(connection, queue, "job-000", 2)
    assert [d.id for d in claim(connection, queue, "run", 2)] == ["job-001"]


def test_q08_a_skipped_group_goes_on_and_the_redriven_job_comes_last(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, type="fifo", message_group_field="g", max_retries=1)
    for number in range(3):
        enqueue(connection, queue, job(number, group="a"), 0)
    [head] = claim(connection, queue, "run", 0)
    settle(connection, head, FAILED, 0, 0.5)
    assert admin.redrive(connection, queue, "job-000", 1, data=b'{"edited":true}')
    order = []
    while claimed := claim(connection, queue, "run", 2):
        [delivery] = claimed
        order.append((delivery.id, delivery.data))
        settle(connection, delivery, DONE, 2, 0.5)
    assert order == [("job-001", b"{}"), ("job-002", b"{}"), ("job-000", b'{"edited":true}')]


def test_redriving_what_is_not_dead_says_so(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection)
    enqueue(connection, queue, job(1), 0)
    assert not admin.redrive(connection, queue, "job-001", 0)
    assert not admin.discard(connection, queue, "nothing", 0)
    assert admin.redrive_all(connection, queue, 0) == 0


def test_purge_leaves_what_runs_and_what_is_dead(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, concurrency=1, max_retries=1)
    for number in range(3):
        enqueue(connection, queue, job(number), 0)
    [delivery] = claim(connection, queue, "run", 0)
    settle(connection, delivery, FAILED, 0, 0.5)
    claim(connection, queue, "run", 0)
    assert admin.purge(connection, queue) == 1
    counted = admin.counts(connection, queue)
    assert (counted["depth"], counted["running"], counted["dlq_depth"]) == (1, 1, 1)


def test_a_topic_keeps_early_messages_for_its_first_subscriber_only(connection: sqlite3.Connection) -> None:
    queue_without_subscribers = catalog.queue_without_subscribers(connection, "orders")
    enqueue(connection, queue_without_subscribers, NewJob("early", "", b"1"), 0)
    assert claim(connection, queue_without_subscribers, "run", 0) == []
    queues = []
    for function in ("a::on", "b::on"):
        name = catalog.topic_name("orders", None, function)
        queues.append(catalog.subscribe(connection, Queue(0, name, QueueConfig(), "orders", None, function)))
    assert [[(d.id, d.function_id) for d in claim(connection, queue, "run", 0)] for queue in queues] == [
        [("early", "a::on")],
        [],
    ]


def test_q27_a_million_waiting_jobs_do_not_slow_down_a_claim(connection: sqlite3.Connection) -> None:
    queue = queue_in(connection, concurrency=1)
    plans = [
        "SELECT seq FROM jobs WHERE queue = 1 AND state = 0 AND suspect = 0 ORDER BY priority DESC, turn, seq LIMIT 9",
        "SELECT seq FROM jobs WHERE queue = 1 AND state = 0 AND suspect = 1 ORDER BY seq LIMIT 1",
        "SELECT seq FROM jobs WHERE queue = 1 AND state = 1 AND due <= 9 ORDER BY due LIMIT 9",
        "SELECT count(*) FROM jobs WHERE queue = 1 AND state = 2 AND batched = 0",
        "SELECT seq, due FROM jobs WHERE queue = 1 AND grp = 'a' AND state = 3 ORDER BY seq LIMIT 1",
        "SELECT seq FROM jobs WHERE function_id = 'f' AND state = 4 ORDER BY seq LIMIT 9",
        "SELECT 1 FROM jobs WHERE queue = 1 AND grp = 'a' AND state IN (0, 1, 2, 4, 6) AND grp IS NOT NULL",
        "SELECT 1 FROM jobs WHERE queue = 1 AND grp = 'a' AND state = 5 AND grp IS NOT NULL",
    ]
    assert queue.id == 1
    for statement in plans:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "INDEX" in plan, statement
        assert "TEMP B-TREE" not in plan, statement


class Histories(RuleBasedStateMachine):
    """Any history of calls, against the invariants of the specification."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = database()
        self.now = 0
        self.number = 0
        self.sent: dict[str, str] = {}  # id -> group
        self.removed: set[str] = set()
        self.done: list[str] = []
        self.running: list[Delivery] = []
        self.attempts: Counter[str] = Counter()

    @initialize(policy=st.sampled_from(["skip", "block"]), fifo=st.booleans(), slots=st.integers(1, 3))
    def start(self, policy: str, fifo: bool, slots: int) -> None:
        kind = {"type": "fifo", "message_group_field": "g"} if fifo else {}
        self.queue = queue_in(self.connection, concurrency=slots, max_retries=2, on_dead_letter=policy, **kind)

    @rule(group=st.sampled_from("ab"), delay=st.sampled_from([0, 0, 500]), priority=st.integers(0, 1))
    def send(self, group: str, delay: int, priority: int) -> None:
        self.number += 1
        given = group if self.queue.config.type == "fifo" else None
        new = job(self.number, group=given, delay_ms=delay, priority=priority)
        self.sent[enqueue(self.connection, self.queue, new, self.now)] = group

    @rule(missing=st.booleans())
    def start_some(self, missing: bool) -> None:
        absent = {(None, "jobs::run")} if missing else set()
        for delivery in claim(self.connection, self.queue, "run", self.now, absent):
            assert delivery.attempt > self.attempts[delivery.id]
            assert delivery.attempt <= self.attempts[delivery.id] + 1
            self.attempts[delivery.id] = delivery.attempt
            self.running.append(delivery)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 9), verdict=st.sampled_from([DONE, FAILED, RETURNED, INTERRUPTED, MISSING, KILLED]))
    def end_one(self, pick: int, verdict: Verdict) -> None:
        delivery = self.running.pop(pick % len(self.running))
        judged = blame(delivery, verdict, is_shared=bool(self.running))
        settle(self.connection, delivery, judged, self.now, 0.5)
        if verdict.outcome in (Outcome.RETURNED, Outcome.MISSING):
            self.attempts[delivery.id] -= 1
        if verdict is DONE:
            self.done.append(delivery.id)

    @rule()
    def crash(self) -> None:
        recover(self.connection, {self.queue.id: self.queue}, self.now)
        late, self.running = self.running, []
        for delivery in late:
            assert settle(self.connection, delivery, DONE, self.now, 0.5) is None

    @rule(step=st.sampled_from([1, 499, 3000]))
    def wait(self, step: int) -> None:
        self.now += step

    @rule()
    def find_function(self) -> None:
        release(self.connection, "jobs::run")

    @rule()
    def redrive(self) -> None:
        admin.redrive_all(self.connection, self.queue, self.now)

    @rule(number=st.integers(1, 30))
    def cancel(self, number: int) -> None:
        if admin.cancel(self.connection, self.queue, f"job-{number:03}", self.now):
            self.removed.add(f"job-{number:03}")

    @rule(number=st.integers(1, 30))
    def discard(self, number: int) -> None:
        if admin.discard(self.connection, self.queue, f"job-{number:03}", self.now):
            self.removed.add(f"job-{number:03}")

    def rows(self) -> list[tuple[str, int, str | None, int]]:
        return self.connection.execute("SELECT id, state, grp, seq FROM jobs ORDER BY seq").fetchall()

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        stored = {row[0] for row in self.rows()}
        assert stored | set(self.done) | self.removed == set(self.sent)
        assert len(self.done) == len(set(self.done))
        assert not stored & set(self.done)

    @invariant()
    def concurrency_is_kept_and_rows_say_what_runs(self) -> None:
        running = {row[0] for row in self.rows() if row[1] == State.RUNNING}
        assert running == {delivery.id for delivery in self.running}
        if hasattr(self, "queue"):
            assert len(running) <= self.queue.config.concurrency
            assert sum(delivery.possible_poison for delivery in self.running) <= 1

    @invariant()
    def a_group_has_one_head_and_it_is_the_oldest(self) -> None:
        for group in "ab":
            mine = [(row[1], row[3]) for row in self.rows() if row[2] == group]
            live = [seq for state, seq in mine if state in (0, 1, 2, 4)]
            behind = [seq for state, seq in mine if state == State.BEHIND]
            is_dead = any(state == State.DEAD for state, _ in mine)
            assert len(live) <= 1
            if behind and not (is_dead and self.queue.blocks):
                assert live
                assert self.queue.blocks or live[0] < min(behind)

    def teardown(self) -> None:
        self.connection.close()


def test_the_table_names_every_state_and_event() -> None:
    assert {state for state, _ in LIFE} == set(State)
    assert {event for _, event in LIFE} == set(Event)


def test_an_impossible_move_is_refused(connection: sqlite3.Connection) -> None:
    enqueue(connection, queue_in(connection), job(1), 0)
    with pytest.raises(sqlite3.IntegrityError, match="no such move"):
        connection.execute("UPDATE jobs SET state = 5")


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40)
