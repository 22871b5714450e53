"""Schedules that are made at run time: what is asked for, what fires when, and what outlives what."""

from __future__ import annotations

import os
import re
import signal
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import InvocationError
from iii.testing import Engine
from stdlib_workers.cron.job_store import SCHEMA
from stdlib_workers.cron.schedule_store import ScheduleStore
from stdlib_workers.cron.schedules import Schedule, schedule_from
from stdlib_workers.storage import Schema, Store
from tests.support.live_project import project

NOW = round(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"function_id": "a::b", "every_ms": 100}, "id must be a string of 1 to 256 characters, not None"),
        ({"id": "x" * 257, "function_id": "a::b", "every_ms": 100}, "id must be a string of 1 to 256"),
        ({"id": "x", "every_ms": 100}, "function_id must be a string"),
        ({"id": "x", "function_id": "a::b"}, "one of expression, at and every_ms, not none"),
        ({"id": "x", "function_id": "a::b", "at": 1, "every_ms": 100}, "not at and every_ms"),
        ({"id": "x", "function_id": "a::b", "every_ms": 99}, "every_ms must be a whole number from 100"),
        ({"id": "x", "function_id": "a::b", "every_ms": True}, "every_ms must be a whole number from 100"),
        ({"id": "x", "function_id": "a::b", "at": "soon"}, "at must be a time like 2026-01-31T12:00:00"),
        ({"id": "x", "function_id": "a::b", "at": 10**30}, "at must be a time like"),
        ({"id": "x", "function_id": "a::b", "at": True}, "at must be a time like"),
        ({"id": "x", "function_id": "a::b", "expression": "* * *"}, "it has 3 fields"),
        ({"id": "x", "function_id": "a::b", "expression": "0 0 0 1 1 ? 2020"}, "never comes again"),
        ({"id": "x", "function_id": "a::b", "every_ms": 100, "time_zone": "Mars"}, "a name like Europe/Berlin"),
        ({"id": "x", "function_id": "a::b", "every_ms": 100, "catch_up": "all"}, "catch_up must be none or once"),
        ({"id": "x", "function_id": "a::b", "every_ms": 100, "payload": "x" * 300_000}, "at most 262144 bytes"),
        ({"id": "x", "function_id": "a::b", "every_ms": 100, "cron": 1}, "unknown field cron"),
        (None, "id must be"),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(request_: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        schedule_from(request_, NOW)


def test_a_time_without_an_offset_is_in_the_time_zone_of_the_schedule() -> None:
    request = {"id": "x", "function_id": "a::b", "at": "2026-07-01T12:00:00", "time_zone": "Europe/Berlin"}
    at = schedule_from(request, NOW).at
    assert at is not None
    assert datetime.fromtimestamp(at / 1000, UTC).hour == 10


@given(
    st.integers(100, 10_000),
    st.lists(st.integers(0, 50_000), min_size=1, max_size=20),
    st.sampled_from(["none", "once"]),
)
def test_every_tick_is_fired_or_counted_once(every: int, steps: list[int], catch_up: str) -> None:
    schedule = Schedule("x", "a::b", NOW, every_ms=every, catch_up=catch_up)
    last = now = NOW
    ticks = 0
    for step in steps:
        now += step
        found = schedule.due(last, now, began=NOW)
        if found is not None:
            tick, missed = found
            assert last < tick <= now
            assert (tick - NOW) % every == 0
            ticks += 1 + missed
            last = tick
    assert ticks == (now - NOW) // every
    following = schedule.next_tick(last)
    assert following is not None
    assert now < following <= now + every


def test_what_was_missed_while_the_project_was_down_is_made_up_for_once_or_not() -> None:
    for catch_up, expected in (("none", None), ("once", (NOW + 5 * HOUR, 4))):
        for when in ({"every_ms": HOUR}, {"expression": "0 * * * *"}):
            schedule = Schedule("x", "a::b", NOW, catch_up=catch_up, **when)  # type: ignore[arg-type]
            assert schedule.due(NOW, NOW + 5 * HOUR + 9, began=NOW + 5 * HOUR + 5) == expected
            assert schedule.due(NOW, NOW + 5 * HOUR + 9, began=NOW) == (NOW + 5 * HOUR, 4)
    once = Schedule("x", "a::b", NOW, at=NOW + HOUR)
    assert once.due(NOW, NOW + 5 * HOUR, began=NOW + 5 * HOUR) == (NOW + HOUR, 0)  # what is due once is never left out


def test_schedules_fire_by_the_clock_and_change_by_their_id() -> None:
    with Engine({"cron": {}}, now=datetime(2026, 1, 1, tzinfo=UTC)) as iii:
        seen: list[Any] = []

        def note(payload: Any, metadata: Any = None) -> None:
            seen.append((payload, metadata["iii.schedule"]["scheduled_time"], metadata["iii.schedule"]["missed"]))

        iii.worker("notes").register_function("notes::note", note)
        made = iii.call("cron::schedule", {"id": "a", "every_ms": 60_000, "function_id": "notes::note", "payload": 1})
        assert made == {"id": "a", "next": "2026-01-01T00:01:00+00:00", "changed": True}
        again = iii.call("cron::schedule", {"id": "a", "every_ms": 60_000, "function_id": "notes::note", "payload": 1})
        assert again == {**made, "changed": False}
        iii.call("cron::schedule", {"id": "b", "at": "2026-01-01T00:01:30Z", "function_id": "notes::note"})
        iii.advance(125)
        assert [(payload if payload == 1 else "event", when[14:19]) for payload, when, _ in seen] == [
            (1, "01:00"),
            ("event", "01:30"),
            (1, "02:00"),
        ]
        iii.call("cron::schedule", {"id": "a", "expression": "0 12 * * *", "function_id": "notes::note"})
        assert [row["id"] for row in iii.call("cron::schedules")["schedules"]] == ["a"]  # what fires once is gone
        iii.advance("13h")
        assert [when[11:16] for _, when, _ in seen[3:]] == ["12:00"]
        assert iii.call("cron::unschedule", {"id": "a"}) == {"id": "a", "removed": True}
        assert iii.call("cron::unschedule", {"id": "a"}) == {"id": "a", "removed": False}
        iii.advance("2d")
        assert len(seen) == 4
        with pytest.raises(InvocationError, match="invalid_schedule"):
            iii.call("cron::schedule", {"id": "a", "function_id": "notes::note"})


def test_a_schedule_of_a_function_that_is_not_there_waits_for_it() -> None:
    with Engine({"cron": {}}, now=datetime(2026, 1, 1, tzinfo=UTC)) as iii:
        iii.call("cron::schedule", {"id": "late", "at": "2026-01-01T00:00:10Z", "function_id": "late::one"})
        iii.advance(20)
        seen: list[Any] = []
        iii.worker("late").register_function("late::one", seen.append)
        iii.advance(60)
        assert [event["scheduled_time"] for event in seen] == ["2026-01-01T00:00:10+00:00"]
        assert iii.call("cron::schedules")["schedules"] == []


def test_pages_go_by_id_and_filter() -> None:
    with Engine({"cron": {}}) as iii:
        for number in range(7):
            function_id = f"f::{number % 2}"
            iii.call("cron::schedule", {"id": f"s-{number}", "every_ms": HOUR, "function_id": function_id})
        iii.call("cron::schedule", {"id": "other", "every_ms": HOUR, "function_id": "f::0"})
        ids: list[str] = []
        after = None
        while True:
            page = iii.call("cron::schedules", {"prefix": "s-", "limit": 3, "after": after})
            ids += [row["id"] for row in page["schedules"]]
            after = page["after"]
            if after is None:
                break
        assert ids == [f"s-{number}" for number in range(7)]
        found = iii.call("cron::schedules", {"function_id": "f::0"})["schedules"]
        assert [row["id"] for row in found] == ["other", "s-0", "s-2", "s-4", "s-6"]


def test_a_hundred_thousand_schedules_cost_rows_and_nothing_else() -> None:
    store = Store(None, SCHEMA)
    schedules = ScheduleStore(store)
    for number in range(100_000):
        pending = schedules.put(Schedule(f"s-{number}", "a::b", NOW, every_ms=HOUR + number), NOW)
        if number % 5000 == 0:
            pending.result(60)
    pending.result(60)
    plan = store.run(
        lambda connection: connection.execute(
            "EXPLAIN QUERY PLAN SELECT id FROM schedules WHERE due <= 5 ORDER BY due LIMIT 9"
        ).fetchall()
    ).result(10)
    assert "schedules_due" in plan[0][3]
    assert "TEMP B-TREE" not in str(plan)
    tracemalloc.start()
    claimed = schedules.claim(NOW + HOUR + 10, NOW, 256).result(10)
    assert (len(claimed.rows), claimed.due) == (11, NOW + HOUR + 11)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    store.close()


def test_a_damaged_schedule_is_named_and_does_not_fire(capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(None, SCHEMA)
    schedules = ScheduleStore(store)
    for name in ("a", "b"):
        schedules.put(Schedule(name, "f::f", NOW, every_ms=HOUR), NOW).result(10)
    store.run(
        lambda connection: connection.execute("UPDATE schedules SET spec = x'31' WHERE id = 'a'") and None
    ).result(10)
    claimed = schedules.claim(NOW + HOUR, NOW, 9).result(10)
    assert [row.id for row in claimed.rows] == ["b"]
    assert "the schedule a is damaged on the disk" in capsys.readouterr().err
    with pytest.raises(InvocationError, match="the schedule a is damaged"):
        schedules.page("", 9, NOW).result(10)
    assert schedules.put(Schedule("a", "f::f", NOW, every_ms=HOUR), NOW).result(10)[1]
    store.close()


def test_a_file_from_before_there_were_schedules_is_upgraded(tmp_path: Path) -> None:
    old = Schema(SCHEMA.application_id, SCHEMA.create.partition("CREATE TABLE schedules")[0], SCHEMA.upgrades[:1])
    Store(tmp_path / "cron.db", old).close()
    store = Store(tmp_path / "cron.db", SCHEMA)
    assert ScheduleStore(store).page("", 9, NOW).result(10) == []
    store.close()


TOML = """
[engine]
listen = "off"
[workers.cron]
reload = "exclusive"
[workers.jobs]
run = "jobs.py"
"""

JOBS = """
def note(payload, metadata=None):
    tick = metadata["iii.schedule"]
    say("noted", payload["n"], tick["tick_id"].replace(" ", "_"))
    if payload.get("hang"):
        threading.Event().wait()

worker.register_function("jobs::note", note)
"""


def test_schedules_need_no_maker_and_outlive_kills_of_the_engine_and_of_the_worker(tmp_path: Path) -> None:
    with project(tmp_path, TOML, {"jobs": JOBS}) as running:
        request = {"id": "often", "every_ms": 300, "function_id": "jobs::note", "payload": {"n": 1}}
        running.call("cron::schedule", request)  # the connection of its maker ends here
        running.wait("noted 1", count=2)
        running.kill()
        seen = len(running.lines)
        running.start()
        running.wait("noted 1", count=2, after=seen)
        os.kill(running.pid_of("cron"), signal.SIGKILL)
        running.wait("killed by SIGKILL", after=seen)
        seen = len(running.lines)
        running.wait("noted 1", count=2, after=seen)
        ticks = [line.split()[-1] for line in running.said("noted 1")]
        assert len(set(ticks)) >= len(ticks) - 2  # only a run that a kill has cut off is made again
        assert running.call("cron::schedules")["schedules"][0]["id"] == "often"


def test_a_run_that_a_kill_has_cut_off_is_made_again_with_the_same_tick(tmp_path: Path) -> None:
    with project(tmp_path, TOML, {"jobs": JOBS}) as running:
        request = {"id": "once", "at": 1_000, "function_id": "jobs::note", "payload": {"n": 2, "hang": True}}
        running.call("cron::schedule", request)
        [first] = running.wait("noted 2")
        assert running.call("cron::schedules")["schedules"][0]["running"]
        running.kill()
        running.start()
        assert running.wait("noted 2", count=2)[1] == first
