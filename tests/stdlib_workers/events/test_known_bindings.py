"""Bindings that outlive their binder: which are kept, which are forgotten, and what becomes of their events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.events import TOPIC, Background, KnownBindings, Outbox
from stdlib_workers.events import absent_targets as absent_module
from stdlib_workers.events import known_bindings as known_module
from stdlib_workers.events.absent_targets import PREFIX
from stdlib_workers.events.delivery import MAX_INTERRUPTIONS
from stdlib_workers.state.events import Subscription, subscription_from
from stdlib_workers.state.functions import Options, State
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from tests.support.stand_ins import Callee, binding, until


class Project(Callee):
    """An engine that knows its workers, who made which binding, and calls functions."""

    def __init__(self, **functions: Any) -> None:
        super().__init__(**functions)
        self.workers: dict[str, str] = {"w": "ready"}  # worker -> state
        self.foreign: set[str] = set()
        self.makers: dict[str, str] = {}  # id of a binding -> worker
        self.functions["engine::workers::list"] = lambda _: {"workers": self._rows()}
        self.functions["engine::registered-triggers::list"] = lambda _: {
            "registered_triggers": [{"id": id, "worker_name": name} for id, name in self.makers.items()]
        }

    def _rows(self) -> list[dict[str, Any]]:
        rows = [
            {"name": name, "state": state, "status": "connected" if state == "ready" else "disconnected", "id": name}
            for name, state in self.workers.items()
        ]
        return [*rows, *({"name": name, "status": "connected", "id": name} for name in self.foreign)]


class Process:
    """The state worker, from its start to its end."""

    def __init__(self, path: Path, project: Project) -> None:
        self.project = project
        self.store = Store(path, KEY_VALUE_SCHEMA)
        self.pairs = SqliteKeyValue(self.store)
        self.background = Background()
        self.bindings: KnownBindings[Subscription] = KnownBindings("state", subscription_from, self.pairs.records)
        self.outbox = Outbox(self.pairs.journal, project, self.background, self.bindings)
        self.state = State(self.pairs, Options(), self.bindings, self.outbox)
        self.outbox.start()
        self.bindings.watch(project, self.background)

    async def set(self, value: Any, key: str = "k") -> None:
        await self.state.set({"scope": "s", "key": key, "value": value})

    async def bind(self, id: str, function_id: str = "w::seen", worker: str = "w", **fields: Any) -> None:
        self.project.makers[id] = worker
        await self.bindings.register_trigger(binding(function_id, id=id, **fields))

    async def unbind(self, id: str) -> None:
        self.project.makers.pop(id, None)
        await self.bindings.unregister_trigger(binding(id=id))

    async def records(self) -> int:
        return len(await self.pairs.records.read("binding state"))

    async def waiting(self) -> int:
        topics = [TOPIC, *await self.pairs.journal.topics(PREFIX)]
        return sum([(await self.pairs.journal.size(topic))[0] for topic in topics])

    def end(self) -> None:
        self.background.stop()
        self.store.close()


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and forget soon: what is tested is what is forgotten, not when."""
    for name, seconds in (("LOOK_INTERVAL", 0.02), ("GRACE", 0.3), ("FOREIGN_TIMEOUT", 0.3)):
        monkeypatch.setattr(known_module, name, seconds)


@pytest.fixture
def running() -> Iterator[list[Process]]:
    processes: list[Process] = []
    yield processes
    for process in processes:
        process.end()


async def eventually(read: Any, expected: Any) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while (found := await read()) != expected:
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.005)  # between two looks


def values(project: Project, function_id: str = "w::seen") -> list[Any]:
    return [payload["new_value"] for payload in project.payloads(function_id)]


async def known_to_be_made_by_w(process: Process) -> None:
    await until(lambda: process.bindings._makers.keys() >= process.bindings._live.keys())


async def test_a_write_before_the_binder_is_back_fires_when_it_is(tmp_path: Path, running: list[Process]) -> None:
    project = Project()
    first = Process(tmp_path / "state.db", project)
    await first.bind("t1")
    await known_to_be_made_by_w(first)
    first.end()
    project.workers["w"] = "starting"
    project.makers.clear()
    second = Process(tmp_path / "state.db", project)
    running.append(second)
    for number in range(5):
        await second.set(number)
    await eventually(second.waiting, 5)
    project.functions["w::seen"] = lambda _: None
    # The function is there before its binding: the binding may be one that the new code does not make.
    await second.set(5)
    assert values(project) == []
    await second.bind("t2")
    project.workers["w"] = "ready"
    await until(lambda: values(project) == [0, 1, 2, 3, 4, 5])
    await eventually(second.waiting, 0)
    assert await second.records() == 1


async def test_a_worker_that_is_killed_misses_nothing(tmp_path: Path, running: list[Process]) -> None:
    project = Project(w__seen=lambda _: None)
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    await process.bind("t1")
    await known_to_be_made_by_w(process)
    project.workers["w"] = "backoff"
    seen = project.functions.pop("w::seen")
    await process.unbind("t1")
    for number in range(3):
        await process.set(number)
    await asyncio.sleep(4 * known_module.GRACE)  # longer than any deadline of a worker that is there
    project.functions["w::seen"] = seen
    await process.bind("t2")
    project.workers["w"] = "ready"
    await until(lambda: values(project) == [0, 1, 2])


async def test_a_binding_that_was_withdrawn_fires_no_more(
    tmp_path: Path, running: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_module, "GRACE", 60.0)
    project = Project(w__seen=lambda _: None, w__other=lambda _: None)
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    await process.bind("t1")
    await process.bind("t2", "w::other")
    await known_to_be_made_by_w(process)
    await process.unbind("t1")
    await process.set(1)
    await until(lambda: values(project, "w::other") == [1])
    await eventually(process.waiting, 0)
    await eventually(process.records, 1)
    assert values(project) == []


async def test_a_binding_that_new_code_does_not_make_is_forgotten_after_a_restart(
    tmp_path: Path, running: list[Process]
) -> None:
    project = Project(w__seen=lambda _: None)
    first = Process(tmp_path / "state.db", project)
    await first.bind("t1")
    await known_to_be_made_by_w(first)
    first.end()
    project.makers.clear()
    second = Process(tmp_path / "state.db", project)
    running.append(second)
    await second.set(1)
    await eventually(second.records, 0)
    await eventually(second.waiting, 0)
    assert values(project) == []


async def test_a_binding_whose_worker_is_gone_is_forgotten_and_what_is_dropped_is_said(
    tmp_path: Path, running: list[Process], capfd: pytest.CaptureFixture[str]
) -> None:
    project = Project()
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    await process.bind("t1")
    await known_to_be_made_by_w(process)
    await process.set(1)  # made while it was bound, and never delivered
    del project.workers["w"]  # no longer in iii.toml
    await process.unbind("t1")
    await process.set(2)  # made for the binding while its worker is away
    await until(lambda: "w::seen is no longer bound to state: its worker w is gone" in capfd.readouterr().err)
    assert await process.records() == 0
    await eventually(process.waiting, 0)


async def test_a_binding_of_a_worker_that_this_run_does_not_start_stays(
    tmp_path: Path, running: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `iii dev OTHER` does it: the worker is in iii.toml, and stopped. So it is when its name was not noted yet."""
    project = Project()
    project.workers["other"] = "ready"
    first = Process(tmp_path / "state.db", project)
    await first.bind("t1")
    await known_to_be_made_by_w(first)
    await first.bindings.register_trigger(binding("w::early", id="t2"))
    project.makers.clear()
    first.end()
    project.workers["w"] = "stopped"
    looks = 0

    def look(_: Any) -> Any:
        nonlocal looks
        looks += 1
        return {"workers": project._rows()}

    project.functions["engine::workers::list"] = look
    monkeypatch.setattr(known_module, "FOREIGN_TIMEOUT", 0.0)
    second = Process(tmp_path / "state.db", project)
    running.append(second)
    await second.set(1)
    await until(lambda: looks > 20)
    assert await second.records() == 2
    assert await second.waiting() == 2
    project.workers["w"] = "ready"
    project.functions["w::seen"] = project.functions["w::early"] = lambda _: None
    await second.bind("t3")
    await second.bind("t4", "w::early")
    await until(lambda: values(project) == [1] and values(project, "w::early") == [1])


async def test_a_worker_that_is_not_in_the_file_may_come_back_for_a_while(
    tmp_path: Path, running: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_module, "FOREIGN_TIMEOUT", 60.0)
    project = Project(x__seen=lambda _: None)
    project.foreign.add("x")
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    await process.bind("t1", "x::seen", "x")
    await known_to_be_made_by_w(process)
    project.foreign.clear()
    await process.unbind("t1")
    await process.set(1)
    project.foreign.add("x")
    await process.bind("t2", "x::seen", "x")
    await until(lambda: values(project, "x::seen") == [1])


async def test_what_no_worker_has_bound_ends_with_its_connection(tmp_path: Path, running: list[Process]) -> None:
    """Such as `iii state watch`."""
    project = Project(cli__seen=lambda _: None)
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    await process.bind("t1", "cli::seen", "cli")
    await eventually(process.records, 0)
    await process.set(1)
    await until(lambda: values(project, "cli::seen") == [1])
    await process.unbind("t1")
    await process.set(2)
    assert len(process.bindings) == 0
    await eventually(process.waiting, 0)


async def test_equal_bindings_fire_once_each_also_while_they_are_away(tmp_path: Path, running: list[Process]) -> None:
    project = Project(w__seen=lambda _: None)
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    for number in range(2):
        await process.bind(f"t{number}")
    await known_to_be_made_by_w(process)
    project.workers["w"] = "backoff"
    for number in range(2):
        await process.unbind(f"t{number}")
    await process.set(1)
    for number in range(2):
        await process.bind(f"u{number}")
    project.workers["w"] = "ready"
    await until(lambda: values(project) == [1, 1])
    assert await process.records() == 2


async def test_an_absent_target_holds_up_neither_the_others_of_its_event_nor_other_keys(
    tmp_path: Path, running: list[Process]
) -> None:
    project = Project(w__seen=lambda _: None)
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    await process.bind("t1", "w::missing")
    await process.bind("t2")
    amount = 300  # more than keys that deliver at the same time
    for number in range(amount):
        await process.set(number, f"k{number}")
    await until(lambda: len(values(project)) == amount)
    got: list[Any] = []
    project.functions["w::missing"] = lambda payload: got.append(payload["new_value"])
    await until(lambda: len(got) == amount)


async def test_what_waits_is_bounded_and_what_is_dropped_is_said(
    tmp_path: Path, running: list[Process], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(absent_module, "MAX_ENTRIES", 20)
    monkeypatch.setattr(absent_module, "PAGE", 5)
    project = Project()
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    await process.bind("t1")
    for number in range(50):
        await process.set(number)
    await until(lambda: "too many events wait for w::seen" in capfd.readouterr().err)
    await eventually(lambda: process.pairs.journal.size(TOPIC), (0, 0))
    assert await process.waiting() <= 20
    project.functions["w::seen"] = lambda _: None
    await until(lambda: values(project)[-1:] == [49])
    assert len(values(project)) < 50
    await until(lambda: "events that were dropped" in capfd.readouterr().err)


async def test_an_event_that_ends_its_worker_every_time_is_given_up(
    tmp_path: Path, running: list[Process], capfd: pytest.CaptureFixture[str]
) -> None:
    def end_process(payload: Any) -> None:
        if payload["new_value"] == "poison":
            raise InvocationError("invocation_stopped", "the process of w ended")

    project = Project(w__seen=end_process)
    process = Process(tmp_path / "state.db", project)
    running.append(process)
    await process.bind("t1")
    await process.set("poison")
    await process.set("next")
    await until(lambda: values(project)[-1:] == ["next"])
    # One attempt in the outbox, and the rest where it waits for its target.
    assert values(project).count("poison") == 1 + MAX_INTERRUPTIONS
    assert f"its process ended {MAX_INTERRUPTIONS} times on it" in capfd.readouterr().err
