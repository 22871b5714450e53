"""Random runs while everything is killed: bodies, callees, the flow worker, the engine. An oracle judges the history.

Handlers write fsynced lines of what they did. III_FLOW_RUNS and III_FLOW_KILLS scale it: slow with large numbers.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from iii import InvocationError
from iii.errors import IIIError
from tests.support.live_project import BOUND, Project, project

RUNS = int(os.environ.get("III_FLOW_RUNS", "60"))
KILLS = int(os.environ.get("III_FLOW_KILLS", "8"))
TOML = """
[engine]
listen = "off"
[workers.flow]
[workers.bodies]
run = "bodies.py"
[workers.callees]
run = "callees.py"
"""
LOG = """
import json, os, random, time
log = os.open("history.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(**fields):
    os.write(log, (json.dumps(fields) + "\\n").encode())
    os.fsync(log)
"""
BODIES = (
    LOG
    + """
@worker.flow("torture::run", id_field="id")
def run(flow, id: str, plan: list, fails: bool):
    results = []
    for number, (kind, value) in enumerate(plan):
        name = f"{kind}-{number}"
        if kind == "call":
            payload = {"run": id, "step": name}
            results.append(flow.call("callees::work", payload, name=name, undo="callees::undo", max_retries=50,
                                     backoff_ms=10))
        elif kind == "step":
            results.append(flow.step(name, lambda: note(did=f"{id}/{name}") or value))
        elif kind == "sleep":
            flow.sleep(value / 1000, name=name)
        elif kind == "wait":
            results.append(flow.wait("event", name=name))
        else:
            results.append(flow.map("callees::work", [{"run": id, "step": f"{name}.{n}"} for n in range(value)]))
    if fails:
        raise InvocationError("planned", "this run fails")
    return results
"""
)
CALLEES = (
    LOG
    + """
def work(payload, metadata):
    note(did=f"{payload['run']}/{payload['step']}", key=metadata["iii.flow"]["key"])
    time.sleep(random.random() * 0.02)
    return payload["step"]
def undo(step):
    note(undid=f"{step['input']['run']}/{step['input']['step']}")
worker.register_function("callees::work", work)
worker.register_function("callees::undo", undo)
"""
)


class Planned(NamedTuple):
    """A run as it is to go."""

    id: str
    plan: list[tuple[str, int]]
    fails: bool

    def result(self) -> list[Any]:
        """Return what its body returns."""
        results: list[Any] = []
        events = iter(range(len(self.plan)))
        for number, (kind, value) in enumerate(self.plan):
            name = f"{kind}-{number}"
            if kind == "map":
                results.append([f"{name}.{n}" for n in range(value)])
            elif kind != "sleep":
                results.append({"call": name, "step": value, "wait": None}[kind] if kind != "wait" else next(events))
        return results

    def calls(self) -> list[str]:
        """Return its calls that are undone when it fails, in order."""
        return [f"{self.id}/call-{number}" for number, (kind, _) in enumerate(self.plan) if kind == "call"]


def planned(number: int, chance: random.Random) -> Planned:
    kinds = [chance.choice(["call", "call", "step", "sleep", "wait", "map"]) for _ in range(chance.randint(1, 5))]
    return Planned(f"r{number}", [(kind, chance.randint(1, 4)) for kind in kinds], chance.random() < 0.3)


def violations(run: Planned, shown: dict[str, Any], lines: Iterable[dict[str, Any]]) -> list[str]:
    """Say what is wrong with a run: its end, its journal, what its handlers did, the order of its undoing."""
    lines = list(lines)
    found = []
    if shown["state"] != ("failed" if run.fails else "completed"):
        found.append(f"{run} is {shown['state']}: {shown.get('error')}, {shown['steps']}")
    elif not run.fails and shown["result"] != run.result():
        found.append(f"{run.id} has the result {shown['result']}, not {run.result()}")
    keys = [step["key"] for step in shown["steps"]]
    if len(keys) != len(set(keys)):
        found.append(f"{run.id} has a key twice")
    did = [line["did"] for line in lines if line.get("did", "").startswith(f"{run.id}/")]
    missing = set(run.calls()) - set(did)
    if missing:
        found.append(f"{run.id} never did {sorted(missing)}")
    undid = [line["undid"] for line in lines if line.get("undid", "").startswith(f"{run.id}/")]
    once = [each for number, each in enumerate(undid) if each not in undid[:number]]
    if once != (run.calls()[::-1] if run.fails else []):
        found.append(f"{run.id} undid {once}")
    first = next((number for number, line in enumerate(lines) if line.get("undid") in undid), len(lines))
    late = [line["did"] for line in lines[first + 1 :] if line.get("did", "").startswith(f"{run.id}/")] if undid else []
    if late:
        found.append(f"{run.id} went on after its undoing: {late}")
    return found


def test_each_check_of_the_oracle_finds_its_planted_fault() -> None:
    run = Planned("r1", [("call", 1), ("call", 1)], fails=True)
    steps = [{"key": "call-0"}, {"key": "call-1"}]
    did = [{"did": "r1/call-0"}, {"did": "r1/call-1"}]
    undid = [{"undid": "r1/call-1"}, {"undid": "r1/call-0"}]
    failed = {"state": "failed", "steps": steps}
    assert violations(run, failed, did + undid) == []
    assert violations(run, failed, [*did, undid[0], *undid]) == []  # at least once
    assert "is parked" in violations(run, {**failed, "state": "parked"}, did + undid)[0]
    assert "twice" in violations(run, {**failed, "steps": steps * 2}, did + undid)[0]
    assert "never did" in violations(run, failed, did[:1] + undid)[0]
    assert "undid" in violations(run, failed, did + undid[::-1])[0]
    assert "undid" in violations(run, failed, did + undid[:1])[0]
    assert "went on" in violations(run, failed, did + undid + did[:1])[0]
    done = Planned("r1", [("call", 1), ("wait", 1)], fails=False)
    good = {"state": "completed", "steps": [], "result": ["call-0", 0]}
    assert violations(done, good, did[:1]) == []
    assert "has the result" in violations(done, {**good, "result": ["call-0"]}, did[:1])[0]


def kill_something(running: Project, chance: random.Random) -> None:
    victim = chance.choice(["flow", "flow", "bodies", "callees", "engine"])
    if victim == "engine":
        running.kill()
        running.start()
        return
    try:
        os.kill(running.pid_of(victim), signal.SIGKILL)
    except (IIIError, ProcessLookupError, StopIteration, TypeError, OSError):
        return  # it is dead already


def asked(running: Project, function_id: str, payload: Any) -> Any:
    """Call until the flow worker is there to answer."""
    give_up = time.monotonic() + BOUND
    while True:
        try:
            return running.call(function_id, payload)
        except InvocationError as error:
            if error.code in ("run_not_found", "run_conflict", "run_ended") or time.monotonic() > give_up:
                raise


@pytest.mark.timeout(60 + RUNS + 10 * KILLS)
@pytest.mark.slow
def test_every_acknowledged_run_ends_as_planned_whatever_is_killed(tmp_path: Path) -> None:
    chance = random.Random(20261130)
    runs = [planned(number, chance) for number in range(RUNS)]
    with project(tmp_path, TOML, {"bodies": BODIES, "callees": CALLEES}) as running:
        for number, run in enumerate(runs):
            payload = {"id": run.id, "plan": run.plan, "fails": run.fails}
            asked(running, "flow::start", {"function_id": "torture::run", "payload": payload})
            for event in range(sum(kind == "wait" for kind, _ in run.plan)):
                signal_ = {"run": run.id, "event": "event", "payload": event, "id": str(event)}
                asked(running, "flow::signal", signal_)
            if number % max(1, RUNS // KILLS) == 0:
                kill_something(running, chance)
        give_up = time.monotonic() + 60 + RUNS / 10
        while True:
            query = {"state": ["queued", "running", "parked", "held", "undoing"], "limit": 1000}
            if not asked(running, "flow::list", query)["runs"]:
                break
            assert time.monotonic() < give_up, asked(running, "flow::list", query)["runs"][:3]
        found = []
        lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
        for run in runs:
            found += violations(run, asked(running, "flow::get", {"run": run.id}), lines)
        assert found == [], "\n".join(found)
