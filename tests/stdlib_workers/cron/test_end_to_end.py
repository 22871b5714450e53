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
