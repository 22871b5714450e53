"""Events of state: who gets which, in which order, what happens when the target is away or the worker restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.events import TOPIC, Background, KnownBindings, Outbox
from stdlib_workers.events import outbox as outbox_module
from stdlib_workers.state.events import Subscription, subscription_from
from stdlib_workers.state.functions import Options, State
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from tests.support.stand_ins import Callee, binding, slow_step, until


class Setup:
    """State, its bindings and its outbox over one file, as one process has them."""

    def __init__(self, path: Path, worker: Callee, options: Options | None = None) -> None:
        self.store = Store(path, KEY_VALUE_SCHEMA)
        self.pairs = SqliteKeyValue(self.store)
        self.background = Background()
        self.bindings: KnownBindings[Subscription] = KnownBindings("state", subscription_from, self.pairs.records)
        self.outbox = Outbox(self.pairs.journal, worker, self.background, self.bindings)
        self.state = State(self.pairs, options or Options(), self.bindings, self.outbox)
        self.outbox.start()

    async def set(self, key: str, value: Any, scope: str = "s") -> None:
        await self.state.set({"scope": scope, "key": key, "value": value})

    async def bind(self, *arguments: Any, **fields: Any) -> None:
        await self.bindings.register_trigger(binding(*arguments, **fields))

    async def waiting(self) -> int:
        return len(await self.pairs.journal.read(TOPIC, 0, 10_000))

    def end(self) -> None:
        """Leave as a process does that is killed between two commits."""
        self.background.stop()
        self.store.close()


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[list[Setup]]:
    setups: list[Setup] = []
    yield setups
    for setup in setups:
        setup.end()


def values(callee: Callee, function_id: str = "w::seen") -> list[Any]:
    return [payload["new_value"] for payload in callee.payloads(function_id)]


async def test_the_event_says_what_happened(tmp_path: Path, ended: list[Setup]) -> None:
    worker = Callee(w__seen=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind(metadata={"m": 1}, namespace="n")
    await setup.set("k", 1)
    await setup.set("k", None)
    await setup.set("k", 2)
    for _ in range(2):
        await setup.state.delete({"scope": "s", "key": "k"})
    await until(lambda: len(worker.requests) == 5)
    kinds = [(p["event_type"], p["old_value"], p["new_value"]) for p in worker.payloads("w::seen")]
    assert kinds == [
        ("state:created", None, 1),
        ("state:updated", 1, None),
        ("state:updated", None, 2),
        ("state:deleted", 2, None),
        ("state:deleted", None, None),
    ]
    request = worker.requests[0]
    assert (request["metadata"], request["namespace"]) == ({"m": 1}, "n")
    assert request["payload"] == {
        "type": "state",
        "event_type": "state:created",
        "scope": "s",
        "key": "k",
        "old_value": None,
        "new_value": 1,
    }


async def test_targets_of_one_event_are_called_one_after_the_other(tmp_path: Path, ended: list[Setup]) -> None:
    order: list[str] = []
    setup = Setup(tmp_path / "state.db", Callee(w__a=slow_step("a", order), w__b=slow_step("b", order)))
    ended.append(setup)
    await setup.bind("w::a", id="t1")
    await setup.bind("w::b", id="t2")
    await setup.set("k", 1)
    await until(lambda: len(order) == 4)
    assert order == ["a begins", "a ends", "b begins", "b ends"]


async def test_everything_that_writes_fires(tmp_path: Path, ended: list[Setup]) -> None:
    worker = Callee(w__seen=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind()
    await setup.state.set({"scope": "s", "key": "k", "value": 1, "if_version": 0})
    with pytest.raises(InvocationError, match="CONFLICT"):
        await setup.state.set({"scope": "s", "key": "k", "value": 5, "if_version": 0})
    await setup.state.update({"scope": "s", "key": "k", "ops": [{"type": "increment", "path": "", "by": 1}]})
    await setup.state.once({"scope": "r", "key": "r", "writes": [{"scope": "s", "key": "k", "value": 3}]})
    await until(lambda: len(worker.requests) == 4)
    assert sorted((p["key"], p["new_value"]) for p in worker.payloads("w::seen") if p["scope"] == "s") == [
        ("k", 1),
        ("k", 2),
        ("k", 3),
    ]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, ["s/a", "s/b", "t/a"]),
        ({}, ["s/a", "s/b", "t/a"]),
        ({"scope": "s"}, ["s/a", "s/b"]),
        ({"key": "a"}, ["s/a", "t/a"]),
        ({"scope": "s", "key": "b", "description": "ignored"}, ["s/b"]),
        ({"scope": "S"}, []),
        # The empty text is a scope like any other.
        ({"scope": ""}, []),
        ({"scope": None, "key": None}, ["s/a", "s/b", "t/a"]),
    ],
)
async def test_filters_match_exactly(tmp_path: Path, ended: list[Setup], config: Any, expected: list[str]) -> None:
    worker = Callee(w__seen=lambda _: None, w__all=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind(config=config)
    await setup.bind("w::all", id="last")
    for scope, key in (("s", "a"), ("s", "b"), ("t", "a")):
        await setup.set(key, 1, scope)
    await until(lambda: len(worker.payloads("w::all")) == 3)
    assert sorted(f"{p['scope']}/{p['key']}" for p in worker.payloads("w::seen")) == expected


@pytest.mark.parametrize(
    ("verdict", "expected"), [(False, []), (None, [1]), (0, [1]), ("", [1]), ({}, [1]), (True, [1])]
)
async def test_only_an_explicit_false_blocks(
    tmp_path: Path, ended: list[Setup], verdict: Any, expected: list[Any]
) -> None:
    worker = Callee(w__seen=lambda _: None, w__ask=lambda _: verdict, w__last=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind(config={"condition_function_id": "w::ask"})
    await setup.bind("w::last", id="t2")
    await setup.set("k", 1)
    await until(lambda: worker.payloads("w::last"))
    assert worker.payloads("w::ask") == worker.payloads("w::last")
    assert values(worker) == expected


async def test_a_condition_or_a_handler_that_fails_leaves_the_others_alone(tmp_path: Path, ended: list[Setup]) -> None:
    def fail(_: Any) -> None:
        raise InvocationError("invocation_failed", "broken")

    worker = Callee(w__seen=lambda _: None, w__fail=fail, w__last=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind(config={"condition_function_id": "w::fail"})
    await setup.bind("w::fail", id="t2")
    await setup.bind("w::last", id="t3")
    await setup.set("k", 1)
    await until(lambda: worker.payloads("w::last"))
    assert values(worker) == []
    await until_async(setup.waiting, 0)


async def until_async(read: Any, expected: Any) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while await read() != expected:
        assert asyncio.get_running_loop().time() < deadline, await read()


async def test_events_of_one_key_come_in_the_order_of_its_writes(tmp_path: Path, ended: list[Setup]) -> None:
    async def seen(payload: Any) -> None:
        # Later events finish sooner: only waiting for each keeps the order.
        await asyncio.sleep(0.002 * (5 - payload["new_value"] % 5))
        order.setdefault(payload["key"], []).append(payload["new_value"])

    order: dict[str, list[int]] = {}
    setup = Setup(tmp_path / "state.db", Callee(w__seen=seen))
    ended.append(setup)
    await setup.bind()
    await asyncio.gather(*(setup.set(f"k{number % 3}", number) for number in range(30)))
    await until(lambda: sum(map(len, order.values())) == 30)
    assert order == {f"k{number}": list(range(number, 30, 3)) for number in range(3)}


async def test_a_slow_handler_of_one_key_holds_up_no_other(tmp_path: Path, ended: list[Setup]) -> None:
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def seen(payload: Any) -> None:
        if payload["key"] == "slow":
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(gate.wait(), loop))
        done.append(payload["key"])

    done: list[str] = []
    setup = Setup(tmp_path / "state.db", Callee(w__seen=seen))
    ended.append(setup)
    await setup.bind()
    await setup.set("slow", 1)
    await setup.set("fast", 1)
    await until(lambda: done == ["fast"])
    gate.set()
    await until(lambda: done == ["fast", "slow"])


async def test_an_acknowledged_write_fires_after_a_restart(tmp_path: Path, ended: list[Setup]) -> None:
    worker = Callee()
    first = Setup(tmp_path / "state.db", worker)
    await first.bind()
    for number in range(5):
        await first.set("k", number)
    first.end()
    worker.functions["w::seen"] = lambda _: None
    worker.requests.clear()
    # Nobody has bound anything yet: what was committed knows its targets.
    second = Setup(tmp_path / "state.db", worker)
    ended.append(second)
    await until(lambda: len(worker.requests) == 5)
    assert values(worker) == [0, 1, 2, 3, 4]
    await until_async(second.waiting, 0)


async def test_a_target_that_is_away_gets_the_event_when_it_is_back(tmp_path: Path, ended: list[Setup]) -> None:
    worker = Callee()
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind()
    await setup.set("k", 1)
    await until(lambda: worker.requests)
    got: list[Any] = []
    worker.functions["w::seen"] = got.append
    await until(lambda: len(got) == 1)


async def test_a_target_that_met_a_missing_function_itself_is_not_called_again(
    tmp_path: Path, ended: list[Setup]
) -> None:
    def seen(_: Any) -> None:
        raise InvocationError("function_not_found", "Function 'x::y' not found")

    worker = Callee(w__seen=seen)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind()
    await setup.set("k", 1)
    await setup.set("k", 2)
    await until_async(setup.waiting, 0)
    assert values(worker) == [1, 2]


async def test_unregistering_stops_this_binding_only(tmp_path: Path, ended: list[Setup]) -> None:
    worker = Callee(w__seen=lambda _: None, w__other=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind(id="t1")
    await setup.bind("w::other", id="t2")
    await setup.bindings.unregister_trigger(binding(id="t1"))
    await setup.set("k", 1)
    await until(lambda: worker.payloads("w::other"))
    assert values(worker) == []


async def test_registering_an_id_again_replaces_the_binding(tmp_path: Path, ended: list[Setup]) -> None:
    worker = Callee(w__seen=lambda _: None, w__other=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind(id="t1")
    await setup.bind("w::other", id="t1")
    await setup.set("k", 1)
    await until(lambda: worker.payloads("w::other"))
    assert values(worker) == []


async def test_triggers_that_are_turned_off_cost_no_journal(tmp_path: Path, ended: list[Setup]) -> None:
    worker = Callee(w__seen=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker, Options(triggers_enabled=False))
    ended.append(setup)
    await setup.bind()
    await setup.set("k", 1)
    assert await setup.waiting() == 0


async def test_more_events_than_memory_holds_wait_on_the_disk(tmp_path: Path, ended: list[Setup]) -> None:
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def seen(payload: Any) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(gate.wait(), loop))
        got.append(payload["new_value"])

    got: list[int] = []
    setup = Setup(tmp_path / "state.db", Callee(w__seen=seen))
    ended.append(setup)
    await setup.bind()
    amount = outbox_module.MAX_IN_MEMORY + 300
    await asyncio.gather(*(setup.set("k", number) for number in range(amount)))
    await until(lambda: setup.outbox._in_memory == outbox_module.MAX_IN_MEMORY)
    gate.set()
    await until(lambda: len(got) == amount, 30)
    assert got == list(range(amount))


@pytest.mark.parametrize("name", ["scope", "key", "condition_function_id"])
def test_a_filter_that_is_no_string_refuses_the_binding(name: str) -> None:
    with pytest.raises(InvocationError, match=f"{name} of a state trigger must be a string"):
        subscription_from(binding(config={name: 5}))


async def test_an_update_fires_even_when_every_operation_was_skipped(tmp_path: Path, ended: list[Setup]) -> None:
    worker = Callee(w__seen=lambda _: None)
    setup = Setup(tmp_path / "state.db", worker)
    ended.append(setup)
    await setup.bind()
    ops = [{"type": "increment", "path": "__proto__", "by": 1}]
    for key in ("absent", "null"):
        if key == "null":
            await setup.set(key, None)
        await setup.state.update({"scope": "s", "key": key, "ops": ops})
    await until(lambda: len(worker.requests) == 3)
    kinds = [(p["key"], p["event_type"], p["new_value"]) for p in worker.payloads("w::seen")]
    assert sorted(kinds, key=str) == [
        ("absent", "state:created", {}),
        ("null", "state:created", None),
        ("null", "state:updated", None),
    ]
