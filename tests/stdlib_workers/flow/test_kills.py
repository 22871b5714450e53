"""Flows in a real engine: bodies, callees, the flow worker and the engine are killed, and runs go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from tests.support.live_project import BOUND, Project, project

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

BODIES = """
def note(flow, name, die=False):
    say(name, flow.run)
    if die and not os.path.exists(flow.run + ".died"):
        open(flow.run + ".died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return name

@worker.flow("flows::local", id_field="id")
def local(flow, id: str, die: str = ""):
    first = flow.step("first", note, flow, "first", die == "in")
    if die == "after" and not os.path.exists(id + ".died"):
        open(id + ".died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return [first, flow.step("second", note, flow, "second")]

@worker.flow("flows::poison", id_field="id")
def poison(flow, id: str):
    say("poison", id)
    os.kill(os.getpid(), signal.SIGKILL)

@worker.flow("flows::calling", id_field="id")
def calling(flow, id: str, how: str = ""):
    say("turn", id)
    answer = flow.call("callees::charge", {"id": id, "how": how}, undo="callees::refund", backoff_ms=10)
    return [answer, flow.step("last", note, flow, "last")]

@worker.flow("flows::sleeping", id_field="id")
def sleeping(flow, id: str, seconds: float):
    flow.sleep(seconds)
    say("woke", id)
    return flow.wait("go", timeout=60)

@worker.flow("flows::saga", id_field="id")
def saga(flow, id: str):
    for name in ("a", "b", "c"):
        flow.call("callees::take", name, name=name, undo="callees::give")
    raise InvocationError("sold_out", "nothing left")
"""

ENDING = """
def at_the_end():
    say("at the end")
    try:
        while not os.path.exists("refused"):
            worker.trigger("flow::list", {})
    except InvocationError:
        open("refused", "w").close()

@worker.flow("flows::typed", id_field="id")
def typed(flow, id: str):
    flow.call("callees::take", "first", undo="callees::give")
    flow.sleep(0)  # the next turn reads its journal, and tells of that at its end
    at_the_end()
    raise InvocationError("sold_out", "nothing left")

def plain(order, metadata):  # as a worker of another SDK does it
    def take(payload):
        fields = {"function_id": "callees::take", "name": payload, "payload": payload, "undo": "callees::give"}
        return worker.trigger("flow::call", {"flow": metadata["iii.flow"], **fields})
    take("first")
    at_the_end()
    take("last")
    raise InvocationError("sold_out", "nothing left")

worker.register_function("flows::plain", plain)
worker.register_trigger({"type": "flow", "function_id": "flows::plain", "config": {"id_field": "id", "code": "v1"}})
"""

CALLEES = """
gate = threading.Event()

def charge(payload, metadata):
    id, how = payload["id"], payload["how"]
    say("charge", id, metadata["iii.flow"]["key"], metadata["iii.flow"]["attempt"])
    if how == "die" and not os.path.exists(id + ".died"):
        open(id + ".died", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang" and not os.path.exists(id + ".hung"):
        open(id + ".hung", "w").close()
        gate.wait(60)
    ops = [{"type": "increment", "path": "charged", "by": 1}]
    return worker.trigger("state::once", {"scope": "paid", "key": metadata["iii.flow"]["key"], "result": "paid",
        "writes": [{"scope": "accounts", "key": "a", "ops": ops}]})["result"]

def take(name): return name

def give(step):
    say("give", step["result"])
    if step["result"] == "b" and not os.path.exists("gave"):
        open("gave", "w").close()
        say("dying")
        gate.wait(60)

for name, function in dict(charge=charge, take=take, give=give, refund=lambda step: None).items():
    worker.register_function("callees::" + name, function)
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path, TOML, {"bodies": BODIES, "callees": CALLEES}) as made:
        yield made


def start(running: Project, function_id: str, **payload: Any) -> str:
    run: str = running.call("flow::start", {"function_id": function_id, "payload": payload})["run"]
    return run


def show(running: Project, run: str) -> dict[str, Any]:
    shown: dict[str, Any] = running.call("flow::get", {"run": run})
    return shown


def result(running: Project, run: str) -> Any:
    return running.call("flow::result", {"run": run})


def until(is_so: Callable[[], Any]) -> Any:
    """Ask the running project again and again; calls that find no flow worker count as no."""
    give_up = time.monotonic() + BOUND
    while time.monotonic() < give_up:
        try:
            if found := is_so():
                return found
        except InvocationError:
            continue
    raise TimeoutError


def test_01_a_body_that_is_killed_makes_the_step_again_and_a_recorded_one_not(running: Project) -> None:
    assert result(running, start(running, "flows::local", id="x1", die="in")) == ["first", "second"]
    assert running.said("first x1") == ["first x1"] * 2
    assert result(running, start(running, "flows::local", id="x2", die="after")) == ["first", "second"]
    assert running.said("first x2") == ["first x2"]


def test_02_a_flow_worker_that_is_killed_in_a_step_leaves_one_entry_and_one_effect(running: Project) -> None:
    run = start(running, "flows::calling", id="x", how="hang")
    running.wait("charge x")
    os.kill(running.pid_of("flow"), signal.SIGKILL)
    assert until(lambda: result(running, run)) == ["paid", "last"]
    assert [step["key"] for step in show(running, run)["steps"]] == ["callees::charge", "last"]
    assert running.call("state::get", {"scope": "accounts", "key": "a"}) == {"charged": 1}
    assert {line.split()[2] for line in running.said("charge x")} == {"x/callees::charge"}


def test_03_an_engine_that_is_killed_loses_no_acknowledged_run(running: Project) -> None:
    runs = [start(running, "flows::sleeping", id=f"s{number}", seconds=0.5) for number in range(5)]
    hanging = start(running, "flows::calling", id="x", how="hang")
    running.wait("charge x")
    for _ in range(2):
        running.kill()
        running.start()
    assert until(lambda: result(running, hanging)) == ["paid", "last"]
    for run in runs:
        until(lambda run=run: running.call("flow::signal", {"run": run, "event": "go", "payload": run}))
        assert result(running, run) == run


def test_04_a_callee_that_is_killed_costs_an_attempt_and_no_turn(running: Project) -> None:
    run = start(running, "flows::calling", id="x", how="die")
    assert result(running, run) == ["paid", "last"]
    [charge, _] = show(running, run)["steps"]
    assert (charge["attempt"], charge["failures"]) == (2, 1)
    assert show(running, run)["turn"] <= 2


def test_06_a_flow_worker_that_was_down_when_a_run_was_due_fires_once(running: Project) -> None:
    run = start(running, "flows::sleeping", id="x", seconds=0.3)
    until(lambda: show(running, run)["state"] == "parked")
    os.kill(running.pid_of("flow"), signal.SIGKILL)
    running.wait("woke x")
    until(lambda: show(running, run)["steps"][-1]["key"] == "go")
    assert running.said("woke x") == ["woke x"]


def test_11_an_event_as_the_body_parks_wakes_it(running: Project) -> None:
    for number in range(20):
        run = start(running, "flows::sleeping", id=f"r{number}", seconds=0)
        running.call("flow::signal", {"run": run, "event": "go", "payload": number})
        assert result(running, run) == number


def test_26_a_flow_worker_that_is_killed_between_undos_undoes_all_in_order(running: Project) -> None:
    run = start(running, "flows::saga", id="x")
    running.wait("dying")
    os.kill(running.pid_of("flow"), signal.SIGKILL)
    until(lambda: show(running, run)["state"] == "failed")
    gave = [line.split()[1] for line in running.said("give ")]
    assert gave == ["c", "b", "b", "a"]
    assert show(running, run)["error"]["code"] == "sold_out"


def test_29_a_body_that_always_kills_its_worker_fails_after_five_deaths(running: Project) -> None:
    run = start(running, "flows::poison", id="x")
    until(lambda: show(running, run)["state"] == "failed")
    assert running.said("poison x") == ["poison x"] * 5
    assert show(running, run)["error"]["code"] == "flow_worker_died"


def test_31_a_run_whose_function_is_gone_is_held_and_goes_on_when_it_is_back(running: Project) -> None:
    run = start(running, "flows::sleeping", id="x", seconds=0.2)
    running.call("engine::workers::stop", {"name": "bodies"})
    until(lambda: show(running, run)["state"] == "held")
    running.call("engine::workers::start", {"name": "bodies"})
    running.call("flow::signal", {"run": run, "event": "go", "payload": 1})
    assert result(running, run) == 1


def test_05_a_reload_in_a_turn_counts_no_failure_and_the_next_turn_is_new_code(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    body = """
def wait():
    say("in the step")
    open("gate").close()
    return 1

@worker.flow("flows::edited", id_field="id")
def edited(flow, id: str):
    return [flow.step("slow", wait), flow.step("last", lambda: "old")]
"""
    toml = '[engine]\nlisten = "off"\n[workers.flow]\n[workers.bodies]\nrun = "bodies.py"\n'
    with project(tmp_path, toml, {"bodies": body}, "dev") as running:
        run = start(running, "flows::edited", id="x")
        running.wait("in the step")
        file = tmp_path / "bodies.py"
        seen = len(running.lines)
        file.write_text(file.read_text().replace('"old"', '"new"'))
        running.wait("reload", after=seen)
        with gate.open("w"):
            pass
        assert until(lambda: result(running, run)) == [1, "new"]
        assert running.said("in the step") == ["in the step"]
        assert show(running, run)["turn"] == 2


FAULTY_FLOW = """
import os, sqlite3
from functools import partial
from stdlib_workers.flow.__main__ import main

class Faulty(sqlite3.Connection):
    def execute(self, sql, *arguments):
        if sql == "COMMIT" and os.path.exists("broken"):
            os.remove("broken")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return super().execute(sql, *arguments)

sqlite3.connect = partial(sqlite3.connect, factory=Faulty)
main()
"""


def test_23_an_fsync_that_fails_ends_the_flow_worker_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FAULTY_FLOW)
    toml = TOML.replace("[workers.flow]", '[workers.flow]\nrun = "flow.py"')
    with project(tmp_path, toml, {"bodies": BODIES, "callees": CALLEES}) as running:
        first = start(running, "flows::sleeping", id="first", seconds=0)
        until(lambda: show(running, first)["state"] == "parked")
        (tmp_path / "broken").touch()
        with pytest.raises(InvocationError) as error:
            running.call("flow::signal", {"run": first, "event": "go", "payload": "unheard"})
        assert error.value.code == "storage_error"
        running.wait("the disk failed")
        running.wait("exited with code 74")
        until(lambda: running.call("flow::signal", {"run": first, "event": "go", "payload": "heard"}))
        assert result(running, first) == "heard"
        assert result(running, start(running, "flows::local", id="second")) == ["first", "second"]


FAMILY = """
@worker.flow("flows::parent", id_field="id")
def parent(flow, id: str):
    return [flow.call("flows::child", {"id": id + "-child"}), flow.step("last", lambda: say("last", id))]
"""
CHILD = """
@worker.flow("flows::child", id_field="id")
def child(flow, id: str):
    return [flow.wait("go"), flow.step("made", lambda: say("made", id))]
"""


def test_28_a_parent_that_is_killed_as_its_child_ends_gets_the_result_once(tmp_path: Path) -> None:
    with project(tmp_path, TOML, {"bodies": FAMILY, "callees": CHILD}) as running:
        for victims in (["bodies"], ["flow"], ["bodies", "flow"]):
            run = start(running, "flows::parent", id="-".join(victims))
            child = f"{run}/flows::child"
            until(lambda child=child: show(running, child)["state"] == "parked")
            pids = [running.pid_of(victim) for victim in victims]
            running.call("flow::signal", {"run": child, "event": "go", "payload": 7})
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            assert until(lambda run=run: result(running, run)) == [[7, None], None]
            assert running.said(f"last {run}") == [f"last {run}"]
            assert [step["key"] for step in show(running, run)["steps"]] == ["flows::child", "last"]


def test_34_an_input_that_does_not_fit_changed_code_blocks_the_run_until_it_fits(tmp_path: Path) -> None:
    body = """
@worker.flow("flows::edited", id_field="id")
def edited(flow, id: str):
    return [flow.wait("go"), id]
"""
    toml = '[engine]\nlisten = "off"\n[workers.flow]\n[workers.bodies]\nrun = "bodies.py"\n'
    with project(tmp_path, toml, {"bodies": body}, "dev") as running:
        run = start(running, "flows::edited", id="x")
        until(lambda: show(running, run)["state"] == "parked")
        file = tmp_path / "bodies.py"
        text = file.read_text()
        file.write_text(text.replace("id: str", "id: str, amount: int"))
        running.wait("reload")
        running.call("flow::signal", {"run": run, "event": "go", "payload": 1})
        until(lambda: show(running, run)["state"] == "blocked")
        error = show(running, run)["error"]
        assert error["code"] == "flow_changed"
        assert "does not fit its function any more" in error["message"]
        assert "amount" in error["message"]
        file.write_text(text)
        assert until(lambda: result(running, run)) == [1, "x"]


def test_a_flow_in_a_namespace_is_started_by_a_plain_call(tmp_path: Path) -> None:
    body = """
@worker.flow("flows::plain")
def plain(flow, n: int):
    return flow.step("add", lambda: n + 1)
"""
    toml = '[engine]\nlisten = "off"\n[workers.flow]\n[workers.bodies]\nrun = "bodies.py"\nnamespace = "shop"\n'
    with project(tmp_path, toml, {"bodies": body}) as running:
        assert running.call("flows::plain", {"n": 1}, namespace="shop") == 2


@pytest.mark.parametrize(("name", "given"), [("typed", ["first"]), ("plain", ["last", "first"])])
def test_a_body_that_ends_while_the_engine_stops_fails_as_it_would_have_and_is_undone(
    tmp_path: Path, name: str, given: list[str]
) -> None:
    """A flow worker that stops is told how its bodies end, and takes no calls any more."""
    with project(tmp_path, TOML, {"bodies": ENDING, "callees": CALLEES}) as running:
        run = start(running, f"flows::{name}", id="x")
        running.wait("at the end")
        running.stop()
        assert (tmp_path / "refused").exists()
        running.start()
        until(lambda: show(running, run)["state"] in ("failed", "blocked"))
        assert show(running, run)["error"]["code"] == "sold_out"
        assert [line.split()[1] for line in running.said("give ")] == given
