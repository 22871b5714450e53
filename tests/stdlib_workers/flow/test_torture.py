"""Random runs while everything is killed or stopped: bodies, callees, the flow worker, the engine. An oracle judges.

Handlers write fsynced lines of what they did. III_FLOW_RUNS, III_FLOW_KILLS (of the engine; twice as many of the
others, and orderly stops of everything) and III_FLOW_SEED scale it: slow with large numbers.
"""

from __future__ import annotations

import copy
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Condition, local
from typing import Any

import pytest

from iii import InvocationError
from iii.errors import IIIError
from tests.support.flow_oracle import Planned, balance_violations, by_run, planned, violations
from tests.support.live_project import BOUND, Project, project

RUNS = int(os.environ.get("III_FLOW_RUNS", "60"))
KILLS = int(os.environ.get("III_FLOW_KILLS", "3"))
SEED = int(os.environ.get("III_FLOW_SEED", "20261130"))
OTHERS_PER_KILL = 2
# What the flow worker answers for good. That it knows no flow yet is none of it: the bodies may be starting.
FINAL = ("run_conflict", "run_not_found", "run_ended", "invalid_payload")
CLIENTS = 4
TOML = """
[engine]
listen = "off"
[workers.flow]
[workers.state]
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
def make(run, name):
    note(run=run, did=name, key=name, at=round(time.time() * 1000))
    return f"{name}:{random.random()}"

@worker.flow("torture::run", id_field="id")
def run(flow, id: str, plan: list, fails: bool):
    results = []
    try:
        for number, (kind, value) in enumerate(plan):
            name = f"{kind}-{number}"
            if kind == "call":
                payload = {"run": id, "step": name}
                results.append(flow.call("callees::work", payload, name=name, undo="callees::undo", max_retries=50,
                                         backoff_ms=10))
            elif kind == "step":
                results.append(flow.step(name, make, id, name))
            elif kind == "sleep":
                flow.sleep(value / 1000, name=name)
            elif kind == "wait":
                results.append(flow.wait("event", name=name))
            else:
                payloads = [{"run": id, "step": f"{name}.{n}"} for n in range(value)]
                results.append(flow.map("callees::work", payloads))
        if fails:
            raise InvocationError("planned", "this run fails")
        return results
    finally:
        note(run=id, saw=results)
"""
)
CALLEES = (
    LOG
    + """
def once(key, by, result):
    ops = [{"type": "increment", "path": "charges", "by": by}]
    writes = [{"scope": "accounts", "key": "a", "ops": ops}]
    request = {"scope": "paid", "key": key, "result": result, "writes": writes}
    return worker.trigger("state::once", request)["result"]
def work(payload, metadata):
    step, sidecar = payload["step"], metadata["iii.flow"]
    key = sidecar["key"].removeprefix(payload["run"] + "/")
    note(run=payload["run"], did=step, key=key, attempt=sidecar["attempt"], at=round(time.time() * 1000))
    time.sleep(random.random() * 0.02)
    return once(sidecar["key"], 1, f"{step}:{random.random()}")
def undo(step, metadata):
    note(run=step["input"]["run"], undid=step["input"]["step"], result=step["result"])
    once(metadata["iii.flow"]["key"], -1, None)
worker.register_function("callees::work", work)
worker.register_function("callees::undo", undo)
"""
)

# The oracle


def good() -> tuple[Planned, dict[str, Any], list[dict[str, Any]]]:
    """A run that has completed as planned."""
    run = Planned("r1", [("call", 1), ("sleep", 3), ("wait", 1), ("map", 2), ("step", 1)], fails=False)
    mapped = [f"callees::work/{n}/callees::work" for n in range(2)]
    steps: list[dict[str, Any]] = [
        {"key": "call-0", "kind": "call", "value": "call-0:a", "attempt": 2},
        {"key": "sleep-1", "kind": "sleep"},
        {"key": "wait-2", "kind": "wait", "value": 0},
        *({"key": key, "kind": "call", "value": f"map-3.{n}:b", "attempt": 1} for n, key in enumerate(mapped)),
        {"key": "step-4", "kind": "step", "value": "step-4:c"},
    ]
    for step in steps:
        step |= {"state": "done", "started": 1000, "ended": 1003}
    result = ["call-0:a", 0, ["map-3.0:b", "map-3.1:b"], "step-4:c"]
    lines: list[dict[str, Any]] = [
        {"did": "call-0", "key": "call-0", "attempt": 1, "at": 1000},
        {"did": "call-0", "key": "call-0", "attempt": 2, "at": 1001},
        {"saw": result[:1]},
        *({"did": f"map-3.{n}", "key": key, "attempt": 1, "at": 1001} for n, key in enumerate(mapped)),
        {"saw": result[:2]},
        {"did": "step-4", "key": "step-4", "at": 1001},
        {"saw": result},
    ]
    return run, {"state": "completed", "result": result, "steps": steps}, [{"run": "r1", **line} for line in lines]


def failed() -> tuple[Planned, dict[str, Any], list[dict[str, Any]]]:
    """A run that has failed as planned, and undone its two calls."""
    run = Planned("r1", [("call", 1), ("call", 1)], fails=True)
    steps = [
        {"key": key, "kind": "call", "state": "done", "value": f"{key}:a", "attempt": 1, "started": 0, "ended": 5}
        for key in ("call-0", "call-1")
    ]
    lines: list[dict[str, Any]] = [
        *({"did": key, "key": key, "attempt": 1, "at": 1} for key in ("call-0", "call-1")),
        {"saw": ["call-0:a", "call-1:a"]},
        {"undid": "call-1", "result": "call-1:a"},
        {"undid": "call-1", "result": "call-1:a"},  # at least once
        {"undid": "call-0", "result": "call-0:a"},
    ]
    shown = {"state": "failed", "error": {"code": "planned"}, "steps": steps}
    return run, shown, [{"run": "r1", **line} for line in lines]


def test_the_oracle_finds_nothing_wrong_with_good_histories() -> None:
    for run, shown, lines in (good(), failed()):
        assert violations(run, shown, lines) == []
    assert balance_violations([good()[0], failed()[0]], 3) == []


Fault = Callable[[dict[str, Any], list[dict[str, Any]]], object]
# What the oracle must say of a run that has completed -> how its history is spoiled.
FAULTS: dict[str, Fault] = {
    "is parked": lambda shown, _: shown.update(state="parked"),
    "has the result": lambda shown, _: shown["result"].pop(),
    "has the result ['call-0:a', 1": lambda shown, _: shown["result"].__setitem__(1, 1),
    "has the key call-0 2 times": lambda shown, _: shown["steps"].append(shown["steps"][0]),
    "other steps than planned: ['step-4']": lambda shown, _: shown["steps"].pop(),
    "has ended with the step wait-2 open": lambda shown, _: shown["steps"][2].update(state="open"),
    "woke early, after 2 ms at sleep-1": lambda shown, _: shown["steps"][1].update(ended=1002),
    "has seen ['call-0:other'], and in another turn": lambda _, lines: lines[2].update(saw=["call-0:other"]),
    "never did ['call-0']": lambda _, lines: lines.__delitem__(slice(0, 2)),
    "did other, which its journal does not have": lambda _, lines: lines[0].update(did="other", key="other"),
    "did call-0 in attempt 3 of 2": lambda _, lines: lines[1].update(attempt=3),
    "did step-4 997 ms after its end": lambda _, lines: lines[6].update(at=2000),
    "undid ['call-0']": lambda _, lines: lines.append({"undid": "call-0", "result": "call-0:a"}),
}
# The same of a run that has failed.
FAULTS_OF_FAILED: dict[str, Fault] = {
    "is completed": lambda shown, _: shown.update(state="completed", result=[]),
    "has failed by": lambda shown, _: shown["error"].update(code="undo_failed"),
    "undid []": lambda _, lines: lines.__delitem__(slice(3, None)),
    "undid ['call-1']": lambda _, lines: lines.pop(),
    "undid ['call-0', 'call-1']": lambda _, lines: lines.insert(3, lines.pop()),
    "undid call-0 with None, not call-0:a": lambda _, lines: lines[-1].update(result=None),
    "went on after its undoing: ['call-0']": lambda _, lines: lines.append(lines[0]),
}


@pytest.mark.parametrize(
    ("history", "text", "fault"),
    [(good, *fault) for fault in FAULTS.items()] + [(failed, *fault) for fault in FAULTS_OF_FAILED.items()],
)
def test_each_check_of_the_oracle_finds_its_planted_fault(history: Callable[[], Any], text: str, fault: Fault) -> None:
    run, shown, lines = copy.deepcopy(history())
    fault(shown, lines)
    assert text in "\n".join(violations(run, shown, lines))


def test_the_oracle_finds_a_lost_run_and_a_charge_too_many() -> None:
    assert violations(good()[0], None, []) == ["r1 was acknowledged and is lost"]
    assert balance_violations([good()[0]], 4) == ["the account has 4 charges, not 3"]


# The torture


class Clients:
    """Calls of several threads, each over a connection of its own, until there is somebody to answer."""

    def __init__(self, running: Project) -> None:
        self._running = running
        self._own = local()
        self._stack = ExitStack()

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(self, function_id: str, payload: Any) -> Any:
        """Return the result of a call. InvocationError when the flow worker has refused it."""
        give_up = time.monotonic() + 2 * BOUND
        while True:
            try:
                if getattr(self._own, "connection", None) is None:
                    self._own.connection = self._stack.enter_context(self._running.connect())
                return self._own.connection.call(function_id, payload)
            except InvocationError as error:
                if error.code in FINAL or time.monotonic() > give_up:
                    raise
            except (IIIError, OSError, ValueError):
                self._own.connection = None
                if time.monotonic() > give_up:
                    raise


class Starts:
    """How many runs were started, or could not be, for the one who kills."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = Condition()

    def add(self, _: Future[None]) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= count, 4 * BOUND), self._count


def start(clients: Clients, run: Planned) -> None:
    payload = {"id": run.id, "plan": run.plan, "fails": run.fails}
    clients.ask("flow::start", {"function_id": "torture::run", "payload": payload})
    for event in range(len(run.names("wait"))):
        clients.ask("flow::signal", {"run": run.id, "event": "event", "payload": event, "id": str(event)})


def kill(running: Project, victim: str) -> None:
    if victim in ("engine", "stop"):
        running.kill() if victim == "engine" else running.stop()
        running.start()
        return
    try:
        os.kill(running.pid_of(victim), signal.SIGKILL)
    except (IIIError, ProcessLookupError, StopIteration, TypeError, OSError):
        return  # it is dead already


def shown_of(clients: Clients, run: Planned) -> dict[str, Any] | None:
    try:
        shown: dict[str, Any] = clients.ask("flow::export", {"run": run.id})
    except InvocationError as error:
        if error.code == "run_not_found":
            return None
        raise
    return shown


@pytest.mark.timeout(120 + RUNS + 20 * KILLS)
@pytest.mark.slow
def test_every_acknowledged_run_ends_as_planned_whatever_is_killed(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    runs = [planned(f"r{number}", chance) for number in range(RUNS)]
    victims = [
        victim
        for _ in range(KILLS)
        for victim in ("engine", *chance.choices(["flow", "bodies", "callees", "stop"], k=OTHERS_PER_KILL))
    ]
    with (
        project(tmp_path, TOML, {"bodies": BODIES, "callees": CALLEES}) as running,
        Clients(running) as clients,
        ThreadPoolExecutor(CLIENTS) as threads,
    ):
        starts = Starts()
        started = [threads.submit(start, clients, run) for run in runs]
        for each in started:
            each.add_done_callback(starts.add)
        for number, victim in enumerate(victims):
            starts.wait_for(number * RUNS // len(victims))
            kill(running, victim)
        for each in started:
            each.result()
        # Workers that were killed too often stay down; not with a new engine.
        kill(running, "engine")
        await_ends(clients, runs)
        lines = by_run(json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines())
        found = balance_violations(runs, clients.ask("state::get", {"scope": "accounts", "key": "a"})["charges"])
        for run, shown in zip(runs, threads.map(lambda run: shown_of(clients, run), runs), strict=True):
            own = lines.get(run.id, [])
            if faults := violations(run, shown, own):
                found += [*faults, f"  {run}", f"  {shown}", *(f"  {line}" for line in own)]
        count = sum(map(len, lines.values()))
        print(f"seed {SEED}: {RUNS} runs, {dict(Counter(victims))}, {count} lines of handlers, {len(found)} violations")
    assert found == [], "\n".join(found)


def await_ends(clients: Clients, runs: list[Planned]) -> None:
    """Wait until no run has anything left to do; as long as there are fewer and fewer, there is no hurry."""
    query = {"state": ["queued", "running", "parked", "held", "undoing"], "limit": 1000}
    least, give_up = len(runs) + 1, time.monotonic() + 2 * BOUND
    while left := clients.ask("flow::list", query)["runs"]:
        if len(left) < least or len(left) == query["limit"]:
            least, give_up = len(left), time.monotonic() + 2 * BOUND
        assert time.monotonic() < give_up, left[:3]
