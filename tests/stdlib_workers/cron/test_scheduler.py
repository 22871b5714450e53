"""Which ticks are fired: over a year, over clock steps, crashes and long runs; the time is the test's."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from iii import InvocationError
from stdlib_workers.cron.__main__ import store_in_memory
from stdlib_workers.cron.expression import parse
from stdlib_workers.cron.job_store import SCHEMA, JobRecord, SqliteJobStore
from stdlib_workers.cron.jobs import MAX_MISSED, Decision, Job, decide, job_from, payload_from
from stdlib_workers.cron.scheduler import Scheduler, Time
from stdlib_workers.storage import Schema, Store
from stdlib_workers.values import OptionError

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTLE = 30  # turns of the loop in which everything that is ready runs


class World(Time):
    """A clock that moves when the test says so. `step` sets the wall, which no sleeper notices."""

    longest_sleep = 3600.0

    def __init__(self) -> None:
        self.elapsed = timedelta()
        self.offset = timedelta()
        self.sleepers: list[tuple[timedelta, int, asyncio.Future[None]]] = []
        self.count = 0

    def now(self) -> datetime:
        return START + self.elapsed + self.offset

    async def sleep(self, seconds: float) -> None:
        self.count += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.sleepers, (self.elapsed + timedelta(seconds=seconds), self.count, future))
        await future

    def step(self, delta: timedelta) -> None:
        self.offset += delta

    async def pass_time(self, delta: timedelta) -> None:
        end = self.elapsed + delta
        await settle()
        while self.sleepers and self.sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self.sleepers)
            self.elapsed = max(self.elapsed, due)
            if not future.done():
                future.set_result(None)
            await settle()
        self.elapsed = end


async def settle() -> None:
    for _ in range(SETTLE):
        await asyncio.sleep(0)


class Rows:
    """A job store in a dict."""

    def __init__(self) -> None:
        self.last: dict[str, datetime] = {}
        self.running: dict[str, datetime] = {}

    async def open(self, key: str, now: datetime) -> JobRecord:
        return JobRecord(self.last.setdefault(key, now), self.running.pop(key, None))

    async def claim_tick(self, key: str, seen: datetime, decision: Decision, *, fires: bool) -> bool:
        if self.last[key] != seen:
            return False
        self.last[key] = decision.last
        if fires and decision.fire is not None:
            self.running[key] = decision.fire
        return True

    async def mark_ended(self, key: str, tick: datetime) -> None:
        if self.running.get(key) == tick:
            del self.running[key]


class Stage:
    """A scheduler in a world, and what it has fired."""

    def __init__(self, rows: Rows | None = None) -> None:
        self.world = World()
        self.rows = rows or Rows()
        self.fired: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.gate: asyncio.Event | None = None
        self.scheduler = Scheduler(self.rows, self.fire, time=self.world, log=self.said.append)

    async def fire(self, trigger_id: str, payload: dict[str, Any]) -> None:
        self.fired.append(payload)
        if self.gate is not None:
            await self.gate.wait()

    @property
    def ticks(self) -> list[str]:
        return [payload["scheduled_time"][5:16] for payload in self.fired]

    def close(self) -> None:
        for scheduled in self.scheduler.jobs.values():
            for task in (scheduled.task, *scheduled.runs):
                if task is not None:
                    task.cancel()


def job(expression: str, **fields: Any) -> Job:
    return job_from({"expression": expression, **fields}, "reports::run", None)


def staged(test: Callable[[Stage], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def play() -> None:
            stage = Stage()
            try:
                await test(stage)
            finally:
                stage.close()
                await settle()

        asyncio.run(play())

    run.__name__ = test.__name__
    return run


@staged
async def test_a_year_of_days_fires_each_day_once(stage: Stage) -> None:
    stage.scheduler.add("t", job("30 2 * * *", timezone="America/New_York"))
    await stage.world.pass_time(timedelta(days=365))
    assert len(stage.fired) == 365
    assert len({payload["tick_id"] for payload in stage.fired}) == 365
    assert {payload["missed"] for payload in stage.fired} == {0}


@staged
async def test_q22_clock_steps_fire_no_tick_twice(stage: Stage) -> None:
    stage.scheduler.add("t", job("0 * * * *", catch_up="once"))
    for minutes in (90, -60, 45, -170, 200, -3, 0):
        stage.world.step(timedelta(minutes=minutes))
        await stage.world.pass_time(timedelta(hours=5))
    ticks = [payload["tick_id"] for payload in stage.fired]
    assert len(ticks) == len(set(ticks))
    assert ticks == sorted(ticks)


@pytest.mark.parametrize(("catch_up", "fired"), [("once", 1), ("none", 0)])
def test_q22_a_year_that_passes_at_once_is_made_up_once_or_not_at_all(catch_up: str, fired: int) -> None:
    async def play(stage: Stage) -> None:
        stage.scheduler.add("t", job("0 * * * *", catch_up=catch_up))
        await stage.world.pass_time(timedelta(minutes=10))
        stage.world.step(timedelta(days=365, minutes=20))
        await stage.world.pass_time(timedelta(minutes=51))
        assert len(stage.fired) == fired
        assert all(payload["missed"] == MAX_MISSED for payload in stage.fired)
        # The clock is put right again: the job goes on at once.
        stage.world.step(timedelta(days=-365, minutes=-20))
        await stage.world.pass_time(timedelta(hours=3))
        assert stage.ticks[fired:] == ["01-01T02:00", "01-01T03:00", "01-01T04:00"]

    staged(play)()


@pytest.mark.parametrize(("catch_up", "expected"), [("once", [("01-01T03:00", 3)]), ("none", [])])
def test_q23_ticks_while_the_engine_was_down(catch_up: str, expected: list[tuple[str, int]]) -> None:
    async def play(stage: Stage) -> None:
        hourly = job("0 * * * *", catch_up=catch_up)
        stage.rows.last[hourly.key] = START
        stage.world.step(timedelta(hours=3, minutes=30))
        stage.scheduler.add("t", hourly)
        await settle()
        assert [(tick, payload["missed"]) for tick, payload in zip(stage.ticks, stage.fired, strict=True)] == expected

    staged(play)()


@staged
async def test_q23_a_run_that_did_not_end_is_fired_once_more_with_the_same_tick_id(stage: Stage) -> None:
    hourly = job("0 * * * *")
    tick = START - timedelta(hours=1)
    stage.rows.last[hourly.key], stage.rows.running[hourly.key] = tick, tick
    stage.scheduler.add("t", hourly)
    await settle()
    assert [payload["tick_id"] for payload in stage.fired] == [f"{hourly.key}@2025-12-31T23:00:00+00:00"]


@pytest.mark.parametrize(
    ("overlap", "expected"), [("skip", ["01:00", "04:00"]), ("queue", ["01:00", "03:00", "04:00"])]
)
def test_q24_a_run_that_takes_longer_than_its_interval(overlap: str, expected: list[str]) -> None:
    async def play(stage: Stage) -> None:
        stage.scheduler.add("t", job("0 * * * *", overlap=overlap))
        stage.gate = asyncio.Event()
        await stage.world.pass_time(timedelta(hours=3, minutes=30))
        stage.gate.set()
        await stage.world.pass_time(timedelta(hours=1))
        assert [tick[6:] for tick in stage.ticks] == expected

    staged(play)()


@staged
async def test_a_reload_neither_fires_twice_nor_misses(stage: Stage) -> None:
    stage.scheduler.add("old", job("0 * * * *"))
    await stage.world.pass_time(timedelta(minutes=59))
    stage.scheduler.add("new", job("0 * * * *"))
    assert stage.scheduler.remove("old")
    await stage.world.pass_time(timedelta(minutes=2))
    assert [payload["job_id"] for payload in stage.fired] == ["new"]
    assert stage.scheduler.remove("new")
    assert not stage.scheduler.remove("new")
    await stage.world.pass_time(timedelta(hours=2))
    assert len(stage.fired) == 1


@staged
async def test_triggers_with_one_function_and_schedule_all_fire(stage: Stage) -> None:
    for trigger_id in ("x", "y", "z"):
        await stage.scheduler.admit(trigger_id, job("0 * * * *"))
    await stage.world.pass_time(timedelta(hours=1, minutes=1))
    assert sorted(payload["job_id"] for payload in stage.fired) == ["x", "y", "z"]
    key = job("0 * * * *").key
    assert [row["job"] for row in await stage.scheduler.rows()] == [key, f"{key} #2", f"{key} #3"]
    assert len({payload["tick_id"] for payload in stage.fired}) == 3
    await stage.scheduler.leave("y")
    await stage.scheduler.admit("new", job("0 * * * *"))
    assert [row["job"] for row in await stage.scheduler.rows()] == [key, f"{key} #3", f"{key} #2"]


@staged
async def test_a_name_that_another_trigger_keeps_is_refused_with_both_ids(stage: Stage) -> None:
    stage.scheduler._handover_timeout = 0.01
    await stage.scheduler.admit("first", job("0 * * * *", name="report"))
    with pytest.raises(ValueError, match="'report' of the cron trigger second is taken by the trigger first"):
        await stage.scheduler.admit("second", job("30 * * * *", name="report"))
    await stage.world.pass_time(timedelta(hours=1, minutes=1))
    assert [payload["job_id"] for payload in stage.fired] == ["first"]
    await stage.scheduler.leave("first")
    await stage.scheduler.admit("second", job("30 * * * *", name="report"))
    await stage.world.pass_time(timedelta(hours=1))
    assert [payload["job_id"] for payload in stage.fired] == ["first", "second"]


@staged
async def test_a_name_goes_from_the_old_trigger_to_the_new_one_of_a_reload(stage: Stage) -> None:
    await stage.scheduler.admit("old", job("0 * * * *", name="report"))
    admission = asyncio.create_task(stage.scheduler.admit("new", job("30 * * * *", name="report")))
    withdrawn = asyncio.create_task(stage.scheduler.admit("withdrawn", job("15 * * * *", name="report")))
    await settle()
    assert list(stage.scheduler.jobs) == ["old"]
    await stage.scheduler.leave("withdrawn")
    await stage.scheduler.leave("old")
    await admission
    await withdrawn
    assert list(stage.scheduler.jobs) == ["new"]


@staged
async def test_a_store_that_fails_for_a_while_ends_no_job(stage: Stage) -> None:
    working = stage.rows.claim_tick, stage.rows.mark_ended
    failures = [0]

    async def fail(*_: Any, **__: Any) -> None:
        failures[0] += 1
        raise InvocationError("storage_error", "the disk is full", retryable=True)

    stage.scheduler.add("t", job("0 * * * *"))
    await settle()
    stage.rows.claim_tick = stage.rows.mark_ended = fail  # type: ignore[assignment, method-assign]
    await stage.world.pass_time(timedelta(minutes=61))
    assert failures[0] > 1
    stage.rows.claim_tick = working[0]  # type: ignore[method-assign]
    await stage.world.pass_time(timedelta(hours=1))
    assert stage.ticks[-1:] == ["01-01T02:00"]
    stage.rows.mark_ended = working[1]  # type: ignore[method-assign]
    await stage.world.pass_time(timedelta(hours=1))
    assert stage.ticks[-1:] == ["01-01T03:00"]
    assert "the disk is full" in stage.said[0]


@staged
async def test_of_two_engines_on_one_store_one_fires(stage: Stage) -> None:
    other = Scheduler(stage.rows, stage.fire, time=stage.world)
    for scheduler in (stage.scheduler, other):
        scheduler.add("t", job("0 * * * *"))
    await stage.world.pass_time(timedelta(hours=4, minutes=1))
    assert [tick[6:] for tick in stage.ticks] == ["01:00", "02:00", "03:00", "04:00"]
    for scheduled in other.jobs.values():
        assert scheduled.task is not None
        scheduled.task.cancel()


@staged
async def test_after_a_failing_run_the_next_one_comes(stage: Stage) -> None:
    async def fail(trigger_id: str, payload: dict[str, Any]) -> None:
        stage.fired.append(payload)
        raise InvocationError("invocation_failed", "no paper")

    stage.scheduler._fire = fail
    stage.scheduler.add("t", job("0 * * * *"))
    await stage.world.pass_time(timedelta(hours=2, minutes=1))
    assert (len(stage.fired), stage.said) == (2, [])


@staged
async def test_a_job_can_be_run_now_and_listed(stage: Stage) -> None:
    stage.scheduler.add("t", job("0 * * * *", name="report"))
    await settle()
    assert (await stage.scheduler.run_now("report"))["trigger"] == "manual"
    [row] = await stage.scheduler.rows()
    assert (row["job"], row["next"], row["running"]) == ("report", "2026-01-01T01:00:00+00:00", False)
    with pytest.raises(KeyError):
        await stage.scheduler.run_now("nothing")


@staged
async def test_q24_a_job_that_never_comes_says_so(stage: Stage) -> None:
    stage.scheduler.add("t", job("0 0 30 2 *"))
    await settle()
    assert "never comes again" in stage.said[0]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "needs an expression"),
        (None, "needs an expression"),
        ({"expression": "* * *"}, "3 fields"),
        ({"expression": "@daily", "timezone": "Mars/Olympus"}, "timezone must be a name"),
        ({"expression": "@daily", "timezone": 5}, "timezone must be a name"),
        ({"expression": "@daily", "catch_up": "all"}, "catch_up must be none or once"),
        ({"expression": "@daily", "overlap": True}, "overlap must be skip or queue"),
        ({"expression": "@daily", "name": ""}, "name must be"),
    ],
)
def test_q24_a_wrong_binding_is_refused(config: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        job_from(config, "f::g", None)
    assert said in str(caught.value)


def test_the_payload_of_a_tick() -> None:
    tick = START + timedelta(hours=1)
    assert payload_from("t1", "report", tick, tick + timedelta(milliseconds=20), 2) == {
        "trigger": "cron",
        "job_id": "t1",
        "scheduled_time": "2026-01-01T01:00:00+00:00",
        "actual_time": "2026-01-01T01:00:00.020000+00:00",
        "tick_id": "report@2026-01-01T01:00:00+00:00",
        "missed": 2,
    }


def test_a_job_is_in_utc_and_makes_up_for_nothing_unless_told_otherwise() -> None:
    assert job_from({"expression": " @hourly ", "description": "ignored"}, "f::g", None) == Job(
        "default/f::g @hourly UTC", parse("@hourly"), ZoneInfo("UTC"), "none", "skip"
    )


def test_a_late_tick_is_fired_and_an_old_one_is_missed() -> None:
    hourly = Job("k", parse("0 * * * *"))
    hour = START + timedelta(hours=1)
    assert decide(hourly, START, hour - timedelta(seconds=1), was_running=True) is None
    assert decide(hourly, START, hour + timedelta(seconds=4), was_running=True) == Decision(hour, hour, 0)
    assert decide(hourly, START, hour + timedelta(seconds=6), was_running=True) == Decision(hour, None, 1)
    assert decide(hourly, START, hour + timedelta(seconds=4), was_running=False) == Decision(hour, None, 1)


def test_the_store_gives_a_tick_to_one_and_an_unended_run_to_the_next_start_only() -> None:
    store = Store(None, SCHEMA)
    jobs = SqliteJobStore(store)
    assert jobs.open("k", START).result() == JobRecord(START)
    tick = START + timedelta(hours=1)
    decision = Decision(tick, tick, 2)
    assert jobs.claim_tick("k", START, decision, fires=True).result()
    assert not jobs.claim_tick("k", START, decision, fires=True).result()
    assert jobs.open("k", tick).result() == JobRecord(tick, tick, 2)
    assert jobs.open("k", tick).result() == JobRecord(tick)
    later = tick + timedelta(hours=1)
    assert jobs.claim_tick("k", tick, Decision(later, later), fires=True).result()
    jobs.mark_ended("k", later).result()
    assert jobs.open("k", later).result() == JobRecord(later)
    store.close()


def damage(path: Path, old: bytes, new: bytes) -> None:
    """Change a file as a disk might."""
    body = path.read_bytes()
    assert old in body
    path.write_bytes(body.replace(old, new))


def test_a_damaged_record_is_named_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "cron.db"
    store = Store(path, SCHEMA)
    SqliteJobStore(store).open("report", START).result()
    store.close()
    damage(path, b"2026-01-01T00", b"2025-01-01T00")
    store = Store(path, SCHEMA)
    jobs = SqliteJobStore(store)
    later = START + timedelta(hours=1)
    with pytest.raises(InvocationError, match="the record of the cron job report is damaged"):
        jobs.claim_tick("report", START, Decision(later), fires=False).result()
    record = jobs.open("report", later).result()
    assert (record.last, record.running) == (later, None)
    assert "the record of the cron job report is damaged" in record.damage
    assert jobs.open("report", later).result() == JobRecord(later)
    store.close()


def test_the_records_of_an_older_version_are_kept(tmp_path: Path) -> None:
    old = Schema(
        SCHEMA.application_id,
        "CREATE TABLE jobs (key TEXT PRIMARY KEY, last TEXT NOT NULL, running TEXT, missed INTEGER NOT NULL DEFAULT 0, "
        "repeated INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;",
    )
    store = Store(tmp_path / "cron.db", old)
    row = ("report", "2026-01-01T00:00:00+00:00", "2025-12-31T23:00:00+00:00", 3, 0)
    store.run(lambda connection: connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?)", row) and None).result()
    store.close()
    store = Store(tmp_path / "cron.db", SCHEMA)
    record = SqliteJobStore(store).open("report", START + timedelta(days=1)).result()
    assert record == JobRecord(START, START - timedelta(hours=1), 3)
    store.close()


def test_the_store_may_be_kept_in_memory() -> None:
    assert not store_in_memory({})
    public = {"name": "kv", "config": {"lock_ttl_ms": 30_000, "lock_index": "cron_locks", "store_method": "in_memory"}}
    assert store_in_memory({"adapter": public})
    assert not store_in_memory({"adapter": {"name": "local"}})
    for config in ({"adapter": {"name": "redis"}}, {"timezone": "UTC"}, {"adapter": {"name": "kv", "ttl": 1}}):
        with pytest.raises(OptionError, match="cron: "):
            store_in_memory(config)
