"""Observers under a real engine: workers on our own SDK, reloads, tracing, and an engine that is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support import official
from tests.support.dev_project import Caller, Project, free_port, running_project
from tests.support.harness import BOUND

TOML = """
[engine]
listen = "127.0.0.1:PORT"
[workers.shop]
run = "shop.py"
[workers.alerts]
run = "alerts.py"
"""
SHOP = """
from iii import register_worker

worker = register_worker()

def pay(data):
    if data.get("fail"):
        raise ValueError("no money")
    return {"paid": data["amount"]}

def twice(data):
    return [worker.trigger({"function_id": "shop::pay", "payload": data}) for _ in range(2)]

worker.register_function("shop::pay", pay)
worker.register_function("shop::twice", twice)
"""
ALERTS = """
from iii import ObserveRejection, register_worker

worker = register_worker()
taken = []
states = []

def take(data, metadata=None):
    taken.append([data, metadata])
    if data.get("input", {}).get("again"):
        worker.trigger({"function_id": "shop::pay", "payload": data["input"]})

def drain(data):
    found = list(taken)
    taken.clear()
    return found

def refused(data):
    try:
        worker.observe({"function_id": "shop::pay", "filters": {"input.x": 5}}, "alerts::take").ready(20)
    except ObserveRejection as rejection:
        return rejection.code

def brief(data):
    observer = worker.observe({"function_id": "shop::twice"}, "alerts::take", {"id": "brief"})
    observer.on_state_change(lambda state, reason: states.append([state, (reason or {}).get("code")]))
    observer.ready(20)
    observer.dispose()
    return [observer.state, observer.reason["code"]]

worker.register_function("alerts::take", take)
worker.register_function("alerts::drain", drain)
worker.register_function("alerts::refused", refused)
worker.register_function("alerts::brief", brief)
worker.register_function("alerts::states", lambda data: states)
worker.observe(
    {"function_id": "shop::pay", "filters": {"input.amount": {"$gte": 500}}},
    "alerts::take",
    {"metadata": {"team": "pay"}},
)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder: Path = tmp_path_factory.mktemp("observed")
    (folder / "iii.toml").write_text(TOML.replace("PORT", str(free_port())))
    (folder / "shop.py").write_text(SHOP)
    (folder / "alerts.py").write_text(ALERTS)
    with running_project(folder) as running:
        yield running


@pytest.fixture
def caller(project: Project) -> Iterator[Caller]:
    with closing(project.caller()) as caller:
        yield caller


def until(question: Callable[[], Any]) -> Any:
    """Ask a running project again and again, until the answer is true; return it."""
    end = time.monotonic() + BOUND
    while not (answer := question()):
        assert time.monotonic() < end, "the answer was never true"
    return answer


def states(caller: Caller) -> list[str]:
    return [row["state"] for row in caller.result("engine::observers::list")["observers"]]


def taken(caller: Caller, count: int) -> list[Any]:
    found: list[Any] = []
    until(lambda: found.extend(caller.result("alerts::drain")) or len(found) >= count)
    until(lambda: not any(row["in_flight"] for row in caller.result("engine::observers::list")["observers"]))
    found += caller.result("alerts::drain")
    assert len(found) == count
    return found


def test_a_worker_of_ours_observes_another_one(caller: Caller) -> None:
    until(lambda: states(caller) == ["active"])
    caller.result("shop::pay", {"amount": 499})
    caller.result("shop::twice", {"amount": 500})
    assert "error" in caller.call("shop::pay", {"amount": 900, "fail": True})
    for data, metadata in taken(caller, 2):
        assert (data["input"], data["output"]) == ({"amount": 500}, {"paid": 500})
        assert (data["caller"]["worker_name"], data["caller"]["function_id"]) == ("shop", "shop::twice")
        assert metadata == {"team": "pay"}


def test_a_refused_observer_says_why_and_a_disposed_one_is_gone(caller: Caller) -> None:
    assert caller.result("alerts::refused") == "INVALID_FILTER"
    assert caller.result("alerts::brief") == ["disposed", "UNOBSERVED"]
    until(lambda: ["disposed", "UNOBSERVED"] in caller.result("alerts::states"))
    until(lambda: "brief" not in [row["id"] for row in caller.result("engine::observers::list")["observers"]])


def test_a_circle_through_workers_that_say_nothing_of_it_ends(caller: Caller) -> None:
    caller.result("shop::pay", {"amount": 500, "again": True})
    rows = until(
        lambda: [
            row for row in caller.result("engine::observers::list")["observers"] if row["dropped"].get("LOOP_GUARD")
        ]
    )
    assert rows[0]["dropped"]["LOOP_GUARD"] == 1
    taken(caller, 8)


def test_a_reload_neither_loses_nor_doubles(project: Project, caller: Caller) -> None:
    project.folder.joinpath("alerts.py").write_text(ALERTS + "\n# saved\n")
    project.hear(r"alerts.*reload", seconds=BOUND)
    until(lambda: states(caller).count("active") == 1)
    project.folder.joinpath("shop.py").write_text(SHOP + "\n# saved\n")
    project.hear(r"shop.*reload", seconds=BOUND)
    caller.result("alerts::drain")
    for number in range(20):
        caller.result("shop::pay", {"amount": 500 + number})
    assert sorted(one[0]["input"]["amount"] for one in taken(caller, 20)) == list(range(500, 520))


def test_after_a_kill_of_the_engine_the_observers_are_back(project: Project) -> None:
    python = str(official.python_with("0.25.0"))
    url = project.facts["url"]
    command = [python, str(official.HERE / "official_observer.py"), url, "sdk"]
    with official.running(command, III_URL=url):
        with closing(project.caller()) as before:
            until(lambda: "error" not in before.call("sdk::is_local"))
            assert before.result("sdk::is_local")
            for source in ("shop::pay", "sdk::charge"):
                ends = {"source": {"function_id": source, "deliver": "input"}, "target": "sdk::target"}
                before.result("sdk::observe", ends | {"options": {"id": f"of {source}"}})
            until(lambda: states(before).count("active") == 3)
            before.result("shop::pay", {"amount": 1})
            until(lambda: before.result("sdk::drain"))
        os.kill(project.facts["pid"], signal.SIGKILL)
        project.hear(r"ready in", count=2)
        with closing(project.caller()) as after:
            until(lambda: "error" not in after.call("sdk::is_local"))
            until(lambda: states(after).count("active") == 3)
            after.result("sdk::drain")
            for number in range(100):
                after.result("shop::pay", {"amount": number})
            after.result("sdk::call_charge", {"payload": {"amount": "local"}, "count": 100})
            found: list[Any] = []
            until(lambda: found.extend(after.result("sdk::drain")) or len(found) >= 200)
            found += after.result("sdk::drain")
            amounts = [one["data"]["amount"] for one in found]
            assert sorted(map(str, amounts)) == sorted([*map(str, range(100)), *["local"] * 100])


def test_while_calls_are_traced_a_worker_leaves_its_calls_to_the_engine(tmp_path: Path) -> None:
    tmp_path.joinpath("iii.toml").write_text(
        f'[engine]\nlisten = "127.0.0.1:{free_port()}"\n[workers.observability.config]\nsampling_ratio = 1.0\n'
    )
    with running_project(tmp_path) as project, closing(project.caller()) as caller:
        url = project.facts["url"]
        command = [str(official.python_with("0.25.0")), str(official.HERE / "official_observer.py"), url, "sdk"]
        with official.running(command, III_URL=url):
            until(lambda: "error" not in caller.call("sdk::is_local"))
            until(lambda: not caller.result("sdk::is_local"))
            rows = caller.result("engine::observers::list")["functions"]
            row = next(row for row in rows if row["function_id"] == "sdk::charge")
            assert (row["local_dispatch"], row["why_not"]) == (False, "calls are traced")
