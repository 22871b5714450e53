"""The functions `stream::*` and the `stream` trigger: results, events, codes and edges of the contract."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.stream.events import Group, filter_from, group_from
from stdlib_workers.stream.options import Options, options_from
from stdlib_workers.values import OptionError
from tests.support.stand_ins import Callee, binding, slow_step, until
from tests.support.stream_setup import StreamSetup, address


@pytest.fixture
def setup() -> Iterator[StreamSetup]:
    setup = StreamSetup(Callee(w__seen=lambda _: None))
    yield setup
    setup.end()


def events(setup: StreamSetup) -> list[Any]:
    return [payload["event"] for payload in setup.worker.payloads("w::seen")]


async def bind(setup: StreamSetup, **config: Any) -> None:
    await setup.filters.register_trigger(binding(config={"stream_name": "s", **config}, metadata={"m": 1}))


async def code_of(call: Any) -> str:
    with pytest.raises(InvocationError) as caught:
        await call
    return caught.value.code


async def test_items_are_written_read_and_removed(setup: StreamSetup) -> None:
    assert await setup.set("i", {"a": 1}) == {"old_value": None, "new_value": {"a": 1}}
    assert await setup.set("i", 2) == {"old_value": {"a": 1}, "new_value": 2}
    assert await setup.stream.get(address("i")) == 2
    assert await setup.stream.delete(address("i")) == {"old_value": 2}
    assert await setup.stream.delete(address("i")) == {"old_value": None}
    assert await setup.stream.get(address("i")) is None


async def test_groups_and_streams_are_listed(setup: StreamSetup) -> None:
    for item, group, stream in (("z", "b", "s"), ("a", "b", "s"), ("i", "a", "s"), ("i", "g:1", "t:u")):
        await setup.set(item, item, group, stream)
    assert await setup.stream.list({"stream_name": "s", "group_id": "b"}) == ["z", "a"]
    assert await setup.stream.list({"stream_name": "s", "group_id": "none"}) == []
    assert sorted(await setup.stream.list_groups({"stream_name": "s"})) == ["a", "b"]
    listed = [{"id": "s", "groups": ["a", "b"]}, {"id": "t:u", "groups": ["g:1"]}]
    assert await setup.stream.list_all({}) == {"stream": listed, "count": 2}


async def test_update_applies_operations_and_lists_what_did_not_fit(setup: StreamSetup) -> None:
    ops = [{"type": "increment", "path": "n", "by": 2}, {"type": "increment", "path": "", "by": 1}]
    result = await setup.stream.update(address("i") | {"ops": ops})
    assert (result["old_value"], result["new_value"]) == (None, {"n": 2})
    assert [error["code"] for error in result["errors"]] == ["increment.not_number"]


async def test_every_change_fires_an_event(setup: StreamSetup) -> None:
    await bind(setup)
    await setup.set("i", 1)
    await setup.set("i", None)
    await setup.set("i", 2)
    await setup.stream.update(address("i") | {"ops": [{"type": "increment", "path": "", "by": 1}]})
    await setup.stream.delete(address("i"))
    await setup.stream.delete(address("i"))
    sent = {"stream_name": "s", "group_id": "g", "type": "ping", "data": [1]}
    assert await setup.stream.send(sent) is None
    await until(lambda: len(events(setup)) == 6)
    assert events(setup) == [
        {"type": "create", "data": 1},
        {"type": "update", "data": None},
        {"type": "create", "data": 2},
        {"type": "update", "data": 3},
        {"type": "delete", "data": 3},
        {"type": "event", "event": {"type": "ping", "data": [1]}},
    ]
    first, last = setup.worker.payloads("w::seen")[0], setup.worker.payloads("w::seen")[-1]
    assert {"type": "stream", "streamName": "s", "groupId": "g", "id": "i"}.items() <= first.items()
    assert first.keys() == {"type", "timestamp", "streamName", "groupId", "id", "event"}
    # Milliseconds since 1970.
    assert isinstance(first["timestamp"], int)
    assert abs(first["timestamp"] / 1000 - time.time()) < 3600
    assert last["id"] is None
    assert setup.worker.requests[-1]["metadata"] == {"m": 1}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ["g/i", "g/j", "h/i"]),
        ({"group_id": "g"}, ["g/i", "g/j"]),
        ({"item_id": "i"}, ["g/i", "h/i"]),
        ({"group_id": "", "item_id": ""}, ["g/i", "g/j", "h/i"]),
        ({"group_id": "g", "item_id": "j"}, ["g/j"]),
    ],
)
async def test_filters_of_the_trigger(setup: StreamSetup, config: dict[str, str], expected: list[str]) -> None:
    await bind(setup, **config)
    setup.worker.functions["w::all"] = lambda _: None
    await setup.filters.register_trigger(binding("w::all", {"stream_name": "s"}, "last"))
    for group, item in (("g", "i"), ("g", "j"), ("h", "i")):
        await setup.set(item, 1, group)
    await setup.set("i", 1, "g", "other")
    await until(lambda: len(setup.worker.payloads("w::all")) == 3)
    seen = [f"{payload['groupId']}/{payload['id']}" for payload in setup.worker.payloads("w::seen")]
    assert sorted(seen) == expected


@pytest.mark.parametrize(
    "config", [None, {}, {"stream_name": ""}, {"stream_name": 5}, {"stream_name": "s", "item_id": 1}]
)
def test_a_trigger_without_a_stream_is_refused(config: Any) -> None:
    with pytest.raises(InvocationError, match="needs a stream_name") as caught:
        filter_from(binding(config=config))
    assert caught.value.code == "trigger_registration_failed"


@pytest.mark.parametrize("missing", ["stream_name", "group_id", "item_id", "data"])
async def test_a_field_that_is_missing_is_named(setup: StreamSetup, missing: str) -> None:
    payload = {**address("i"), "data": 1}
    del payload[missing]
    with pytest.raises(InvocationError, match=f"stream::set: {missing} is missing") as caught:
        await setup.stream.set(payload)
    assert caught.value.code == "deserialization_error"


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("get", {"stream_name": "s", "group_id": "g"}),
        ("delete", {"stream_name": "s", "item_id": "i"}),
        ("update", address("i")),
        ("list", {"stream_name": "s"}),
        ("list_groups", {}),
        ("list_groups", {"stream_name": 5}),
        ("send", {"stream_name": "s", "group_id": "g", "data": 1}),
        ("send", {"stream_name": "s", "group_id": "g", "type": "t"}),
        ("send", {"stream_name": "s", "group_id": "g", "type": "t", "data": 1, "id": 5}),
        ("set", [1]),
    ],
)
async def test_a_payload_that_does_not_fit_is_refused(setup: StreamSetup, name: str, payload: Any) -> None:
    assert await code_of(getattr(setup.stream, name)(payload)) == "deserialization_error"


async def test_unknown_fields_and_odd_names_are_taken(setup: StreamSetup) -> None:
    assert await setup.stream.set({**address("", "", ""), "data": None, "_caller_worker_id": "x"}) == {
        "old_value": None,
        "new_value": None,
    }
    assert await setup.stream.list_all({}) == {"stream": [{"id": "", "groups": [""]}], "count": 1}


async def test_an_update_of_which_nothing_fits_writes_and_fires_all_the_same(setup: StreamSetup) -> None:
    await bind(setup)
    ops = [{"type": "increment", "path": "__proto__", "by": 1}]
    assert (await setup.stream.update(address("i") | {"ops": ops}))["new_value"] == {}
    await until(lambda: events(setup))
    assert events(setup) == [{"type": "create", "data": {}}]
    assert "errors" not in await setup.stream.update(address("i") | {"ops": []})


async def test_handlers_of_one_event_run_one_after_the_other_in_the_order_of_their_binding(setup: StreamSetup) -> None:
    order: list[str] = []
    for name in "zab":
        setup.worker.functions[f"w::{name}"] = slow_step(name, order)
        await setup.filters.register_trigger(binding(f"w::{name}", {"stream_name": "s"}, f"t-{name}"))
    await setup.set("i", 1)
    await until(lambda: len(order) == 6)
    assert order == [f"{name} {what}" for name in "zab" for what in ("begins", "ends")]


async def test_malformed_operations_write_nothing(setup: StreamSetup) -> None:
    assert await code_of(setup.stream.update(address("i") | {"ops": [{"type": "x"}]})) == "deserialization_error"
    assert await setup.stream.list_all({}) == {"stream": [], "count": 0}


# Custom streams


async def test_a_custom_stream_stands_in_for_the_storage(setup: StreamSetup) -> None:
    functions = {
        "get": lambda payload: {"asked": payload},
        "set": lambda payload: {"new_value": payload["data"], "old_value": 0},
        "delete": lambda _: {"old_value": 5},
        "update": lambda _: {"new_value": 9},
        "list": lambda _: [1, 2],
        "list_groups": lambda _: ["x"],
    }
    setup.worker.functions |= {f"stream::{name}(s)": function for name, function in functions.items()}
    await bind(setup)
    assert await setup.stream.get(address("i")) == {"asked": address("i")}
    assert await setup.set("i", 1) == {"old_value": 0, "new_value": 1}
    assert await setup.stream.update(address("i") | {"ops": []}) == {"old_value": None, "new_value": 9}
    assert await setup.stream.delete(address("i")) == {"old_value": 5}
    assert await setup.stream.list({"stream_name": "s", "group_id": "g"}) == [1, 2]
    assert await setup.stream.list_groups({"stream_name": "s"}) == ["x"]
    assert await setup.pairs.buckets() == []
    await until(lambda: len(events(setup)) == 3)
    assert events(setup) == [
        {"type": "update", "data": 1},
        {"type": "create", "data": 9},
        {"type": "delete", "data": 5},
    ]


@pytest.mark.parametrize(
    ("operation", "result", "code"),
    [
        ("set", None, "STREAM_SET_ERROR"),
        ("set", {"old_value": 1}, "JSON_ERROR"),
        ("set", 5, "JSON_ERROR"),
        ("update", None, "STREAM_UPDATE_ERROR"),
        ("update", [], "JSON_ERROR"),
        ("delete", None, "STREAM_DELETE_ERROR"),
        ("delete", "x", "JSON_ERROR"),
    ],
)
async def test_a_custom_stream_of_another_shape_is_told(
    setup: StreamSetup, operation: str, result: Any, code: str
) -> None:
    setup.worker.functions[f"stream::{operation}(s)"] = lambda _: result
    payload = address("i") | {"data": 1, "ops": []}
    assert await code_of(getattr(setup.stream, operation)(payload)) == code


@pytest.mark.parametrize("operation", ["set", "get", "delete", "update", "list", "list_groups"])
async def test_a_custom_streams_own_error_passes_through(setup: StreamSetup, operation: str) -> None:
    def fail(_: Any) -> None:
        raise InvocationError("MINE", "no")

    setup.worker.functions[f"stream::{operation}(s)"] = fail
    assert await code_of(getattr(setup.stream, operation)(address("i") | {"data": 1, "ops": []})) == "MINE"


async def test_a_custom_stream_that_removed_nothing_fires_nothing(setup: StreamSetup) -> None:
    setup.worker.functions |= {"stream::delete(s)": lambda _: {}, "stream::get(s)": lambda _: None}
    await bind(setup)
    assert await setup.stream.delete(address("i")) == {"old_value": None}
    assert await setup.stream.get(address("i")) is None
    await setup.stream.send({"stream_name": "s", "group_id": "g", "type": "last", "data": 0})
    await until(lambda: events(setup))
    assert events(setup) == [{"type": "event", "event": {"type": "last", "data": 0}}]


async def test_absence_is_asked_once_until_functions_change(setup: StreamSetup) -> None:
    for _ in range(3):
        await setup.stream.get(address("i"))
        await setup.set("i", 1)
    # No call to find out: it would be a failed one.
    assert [request["function_id"] for request in setup.worker.requests] == ["engine::functions::list"]
    setup.worker.functions["stream::get(s)"] = lambda _: "mine"
    setup.custom.forget()
    assert await setup.stream.get(address("i")) == "mine"


async def test_functions_that_change_while_they_are_asked_for_are_asked_for_again(setup: StreamSetup) -> None:
    def list_functions(query: Any) -> dict[str, Any]:
        setup.custom.forget()
        return {"functions": []}

    setup.worker.functions["engine::functions::list"] = list_functions
    for _ in range(2):
        await setup.stream.get(address("i"))
    assert len(setup.worker.payloads("engine::functions::list")) == 2


async def test_a_custom_function_that_is_gone_meanwhile_is_absent(setup: StreamSetup) -> None:
    setup.worker.functions["stream::get(s)"] = lambda _: "mine"
    assert await setup.stream.get(address("i")) == "mine"
    del setup.worker.functions["stream::get(s)"]
    assert await setup.stream.get(address("i")) is None


def test_the_name_of_a_group_holds_any_text() -> None:
    for stream, id in (("a:b", "c"), ("a", "b:c"), ('"', "\\"), ("", "\0"), ("é", "\U0001f600")):
        assert group_from(Group(stream, id).bucket) == (stream, id)


def test_options() -> None:
    assert options_from({}) == Options()
    given = {"host": "0.0.0.0", "port": 5, "auth_function": "a::b", "history": 7, "allowed_origins": ["http://x"]}
    assert options_from(given) == Options("0.0.0.0", 5, "a::b", False, 7, ("http://x",))


@pytest.mark.parametrize(
    "config",
    [
        {"host": "0.0.0.0"},
        {"port": 70000},
        {"host": 5},
        {"history": 0},
        {"allowed_origins": "http://x"},
        {"adapter": {"name": "redis"}},
        {"adapter": {"name": "kv", "config": {"chanel_size": 1}}},
        {"ports": 1},
    ],
)
def test_an_option_that_does_not_fit_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"stream: .*{next(iter(config)).rstrip('s')}"):
        options_from(config)


@pytest.mark.parametrize(("verdict", "fires"), [(False, False), (None, True), (0, True), ({"no": False}, True)])
async def test_only_an_explicit_false_of_the_condition_blocks(verdict: Any, fires: bool) -> None:
    setup = StreamSetup(Callee(w__seen=lambda _: None, w__ask=lambda _: verdict, w__last=lambda _: None))
    try:
        await bind(setup, condition_function_id="w::ask")
        await setup.filters.register_trigger(binding("w::last", {"stream_name": "s"}, "t2"))
        await setup.set("i", 1)
        await until(lambda: setup.worker.payloads("w::last"))
        assert [event["data"] for event in events(setup)] == ([1] if fires else [])
        assert setup.worker.payloads("w::ask") == setup.worker.payloads("w::last")
    finally:
        setup.end()
