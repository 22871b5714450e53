"""Cron in a real engine: ticks arrive, conditions count, a wrong expression is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from iii import InvocationError
from tests.support.live_project import project

TOML = """
[engine]
listen = "off"
[workers.cron]
reload = "exclusive"
[workers.jobs]
run = "jobs.py"
"""

JOBS = """
def tick(payload, metadata=None):
    say("tick", payload["trigger"], payload["job_id"], metadata["note"], payload["missed"])

def refuse(payload):
    return False

for name, function in dict(tick=tick, never=tick, refuse=refuse).items():
    worker.register_function("jobs::" + name, function)
worker.register_trigger({"type": "cron", "function_id": "jobs::tick", "metadata": {"note": "hello"},
                         "config": {"expression": "@every 200ms", "name": "often"}})
worker.register_trigger({"type": "cron", "function_id": "jobs::never",
                         "config": {"expression": "@every 200ms", "condition_function_id": "jobs::refuse"}})
worker.register_trigger({"type": "cron", "function_id": "jobs::tick", "config": {"expression": "0 0 0 * * 0"}})
"""


def test_jobs_fire_and_can_be_fired(tmp_path: Path) -> None:
    with project(tmp_path, TOML, {"jobs": JOBS}) as running:
        ticks = running.wait("tick cron", count=3)
        assert len({line.split()[2] for line in ticks}) == 1
        assert ticks[0].split()[3:] == ["hello", "0"]
        running.wait("1 = Sunday")
        rows = running.call("cron::list")["jobs"]
        assert sorted(row["job"] for row in rows) == ["default/jobs::never @every 200ms UTC", "often"]
        assert running.call("cron::run", {"job": "often"})["trigger"] == "manual"
        running.wait("tick manual")
        with pytest.raises(InvocationError, match="job_not_found"):
            running.call("cron::run", {"job": "nothing"})
        found = running.call("cron::next", {"expression": "0 0 1 1 *", "timezone": "Europe/Berlin", "count": 1})
        assert found["next"][0].endswith("12-31T23:00:00+00:00")
        running.kill()
        seen = len(running.lines)
        running.start()
        running.wait("tick cron", after=seen)


TWINS = """
def tick(payload, metadata=None):
    say("tick", metadata["tenant"], payload["job_id"])
worker.register_function("jobs::tick", tick)
for tenant in ("x", "y"):
    worker.register_trigger({"type": "cron", "function_id": "jobs::tick", "metadata": {"tenant": tenant},
                             "config": {"expression": "@every 200ms"}})
worker.register_trigger({"type": "cron", "function_id": "jobs::tick", "metadata": {"tenant": "z"},
                         "config": {"expression": "@every 1h", "name": "report"}})
worker.register_trigger({"type": "cron", "function_id": "jobs::tick", "metadata": {"tenant": "w"},
                         "config": {"expression": "@every 2h", "name": "report"}})
"""


def test_two_triggers_of_one_function_and_schedule_fire_and_of_one_name_the_second_is_refused(tmp_path: Path) -> None:
    toml = TOML.replace("[workers.jobs]", "[workers.jobs]\ninstances = 2")
    with project(tmp_path, toml, {"jobs": TWINS}) as running:
        running.wait("tick x", count=3)
        running.wait("tick y", count=3)
        ids = {tenant: {line.split()[2] for line in running.said(f"tick {tenant}")} for tenant in "xy"}
        assert len(ids["x"]) == len(ids["y"]) == len(ids["x"] | ids["y"]) - 1  # the instances share a trigger
        [refused, *_] = running.wait("the name 'report' of the cron trigger")
        assert "is taken by the trigger" in refused
        rows = running.call("cron::list")["jobs"]
        assert [row["expression"] for row in rows if row["job"] == "report"] == ["@every 1h"]
