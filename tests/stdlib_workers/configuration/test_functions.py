"""The functions `configuration::*` over a real store: results, codes and edges of the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iii import InvocationError, TriggerConfig
from stdlib_workers.configuration.entries import MAX_BYTES
from stdlib_workers.configuration.events import CHECKS, EVENT_TYPES, Subscription, subscription_from
from stdlib_workers.configuration.functions import MAX_CONFIGURATIONS, Configurations
from stdlib_workers.storage import KEY_VALUE_SCHEMA, Change, SqliteKeyValue, Store
from stdlib_workers.values import decode

Call = Callable[..., Any]
PORT = {"type": "object", "properties": {"port": {"type": "integer"}}, "additionalProperties": False}
ALL = Subscription(None, None, subscription_from(TriggerConfig("", "all::seen", {})).target)


class Owner:
    """Calls of functions that check values: the answer is `answer`, or the error."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Any = {"ok": True}

    async def trigger_async(self, request: Any, payload: Any = None) -> Any:
        self.asked.append((request["function_id"], request["payload"]))
        if isinstance(self.answer, InvocationError):
            raise self.answer
        return self.answer


class Ground:
    """The functions, the events that they made, and the variables that they see."""

    def __init__(self, store: Store) -> None:
        self.variables: dict[str, str] = {}
        self.bindings = [ALL]
        self.owner = Owner()
        self.events: list[Any] = []
        key_values = SqliteKeyValue(store)
        key_values.watch(self._take)
        self.configurations = Configurations(
            key_values, self.variables.get, "1.2.3", bindings=self.bindings, caller=self.owner
        )

    def _take(self, change: Change) -> None:
        self.events += [decode(entry.body) for entry in change.journal]

    def call(self, name: str, /, **payload: Any) -> Any:
        return asyncio.run(getattr(self.configurations, name)(payload))

    def refusal(self, name: str, /, **payload: Any) -> InvocationError:
        with pytest.raises(InvocationError) as caught:
            self.call(name, **payload)
        return caught.value

    def register(self, schema: Any = PORT, **fields: Any) -> Any:
        return self.call("register", **{"id": "web", "name": "Web", "description": "d", "schema": schema, **fields})


@pytest.fixture
def ground() -> Iterator[Ground]:
    store = Store(None, KEY_VALUE_SCHEMA)
    yield Ground(store)
    store.close()


def test_a_registered_configuration_is_read_set_and_listed(ground: Ground) -> None:
    view = {"id": "web", "name": "Web", "description": "d", "schema": PORT}
    assert ground.register() == {**view, "value": None}
    assert ground.call("get", id="web") == {"id": "web", "value": None}
    assert ground.call("set", id="web", value={"port": 1}) == {"old_value": None, "new_value": {"port": 1}}
    assert ground.call("set", id="web", value={}) == {"old_value": {"port": 1}, "new_value": {}}
    ground.register(id="app", metadata={"a": 1})
    assert ground.call("list") == {"configurations": [{**view, "id": "app", "metadata": {"a": 1}}, view]}
    assert ground.call("schema", id="web") == view


def test_registering_again_keeps_the_value_unless_one_is_given(ground: Ground) -> None:
    ground.register(initial_value={"port": 1})
    assert ground.register()["value"] == {"port": 1}
    # A stored value is not judged by the new schema, until it is read.
    assert ground.register({"type": "string"}, initial_value=None)["value"] == {"port": 1}
    assert ground.refusal("get", id="web").code == "SCHEMA_INVALID"
    assert ground.register(initial_value={"port": 2})["value"] == {"port": 2}


def test_wrong_input_has_the_codes_of_the_contract_and_changes_nothing(ground: Ground) -> None:
    for id in ("", "Web", "a b", "x" * 65, "a\n", "ä"):
        refused = {"id": id, "name": "", "description": "", "schema": {}}
        assert ground.refusal("register", **refused).code == "INVALID_ID", id
    for schema in ({"type": "wat"}, 1, "x", None, {"$ref": "http://127.0.0.1:1/x"}, {"pattern": "("}):
        refused = {"id": "web", "name": "", "description": "", "schema": schema}
        assert ground.refusal("register", **refused).code == "SCHEMA_INVALID", schema
    assert ground.refusal("set", id="web", value=1).code == "NOT_REGISTERED"
    assert ground.refusal("set", id="WEB", value=1).code == "INVALID_ID"
    assert ground.refusal("get", id="web").code == "NOT_FOUND"
    assert ground.refusal("schema", id="web").code == "NOT_FOUND"
    assert ground.refusal("set", id="web").code == "deserialization_error"
    assert ground.refusal("get", id="web", raw=1).code == "deserialization_error"
    ground.register(initial_value={"port": 1})
    error = ground.refusal("set", id="web", value={"port": "x"})
    assert (error.code, error.message) == ("SCHEMA_INVALID", 'web: port: "x" is not of type "integer"')
    assert ground.refusal("set", id="web", value={"other": 1}).code == "SCHEMA_INVALID"
    assert ground.call("get", id="web")["value"] == {"port": 1}
    assert len(ground.events) == 1


def test_a_value_is_judged_with_its_variables(ground: Ground) -> None:
    ground.register()
    ground.variables["PORT"] = "80"
    template = {"port": "${PORT}"}
    assert ground.call("set", id="web", value=template)["new_value"] == template
    assert ground.call("get", id="web")["value"] == {"port": 80}
    assert ground.call("get", id="web", raw=True)["value"] == template
    ground.variables["PORT"] = "eighty"
    assert ground.refusal("get", id="web").code == "SCHEMA_INVALID"
    assert ground.refusal("set", id="web", value=template).code == "SCHEMA_INVALID"
    # Without the variable nobody knows yet.
    del ground.variables["PORT"]
    assert ground.call("set", id="web", value=template)["new_value"] == template
    error = ground.refusal("get", id="web")
    assert error.code == "EXPAND_FAILED"
    assert "PORT" in error.message


def test_every_change_is_an_event_for_those_who_want_it_the_global_ones_first(ground: Ground) -> None:
    ground.bindings[:] = [
        subscription_from(TriggerConfig("", "own::seen", {"configuration_id": "web"})),
        subscription_from(TriggerConfig("", "other::seen", {"configuration_id": "app"})),
        subscription_from(TriggerConfig("", "gone::seen", {"event_types": ["configuration:deleted"]})),
        ALL,
    ]
    ground.variables["PORT"] = "80"
    ground.register(initial_value={"port": "${PORT}"}, metadata={"m": 1})
    ground.register(metadata={"m": 1})
    ground.call("set", id="web", value={})
    assert [[target["function_id"] for target in event["targets"]] for event in ground.events] == [
        ["all::seen", "own::seen"]
    ] * 3
    payloads = [event["payload"] for event in ground.events]
    shown = {"type": "configuration", "id": "web", "name": "Web", "description": "d", "schema": PORT}
    assert payloads[0] == {
        **shown,
        "event_type": "configuration:registered",
        "metadata": {"m": 1},
        "old_value": None,
        "new_value": {"port": 80},
    }
    assert [each["event_type"] for each in payloads[1:]] == ["configuration:updated"] * 2
    assert (payloads[2]["old_value"], payloads[2]["new_value"]) == ({"port": 80}, {})


def test_a_binding_with_a_wrong_filter_is_refused() -> None:
    for config in ({"configuration_id": 1}, {"event_types": "x"}, {"event_types": ["configuration:set"]}):
        with pytest.raises(InvocationError, match=r"configuration_id|event_types") as caught:
            subscription_from(TriggerConfig("", "f", config))
        assert caught.value.code == "trigger_registration_failed"
    assert subscription_from(TriggerConfig("", "f", {"event_types": list(EVENT_TYPES)})).event_types == EVENT_TYPES


def test_an_owner_may_refuse_a_value_with_its_own_words(ground: Ground) -> None:
    ground.register()
    owner = TriggerConfig("", "web::check", {"configuration_id": "web"}, CHECKS)
    ground.bindings[:] = [subscription_from(owner), subscription_from(TriggerConfig("", "x::check", {}, CHECKS))]
    ground.owner.answer = {"refused": {"code": "RESTART_REQUIRED", "message": "not now"}}
    error = ground.refusal("set", id="web", value={"port": 1})
    assert (error.code, error.message) == ("RESTART_REQUIRED", "not now")
    assert ground.owner.asked == [("web::check", {"check": {"port": 1}})]
    ground.owner.answer = InvocationError("boom", "it has crashed")
    assert ground.refusal("set", id="web", value={"port": 1}).code == "boom"
    assert ground.call("get", id="web")["value"] is None
    # An owner that is away judges when it is back.
    ground.owner.answer = InvocationError("function_not_found", "web::check")
    assert ground.call("set", id="web", value={"port": 1})["new_value"] == {"port": 1}


def test_what_callers_can_fill_is_bounded(ground: Ground) -> None:
    big = "x" * MAX_BYTES
    assert ground.refusal("register", id="a", name="", description="", schema={}, initial_value=big).code == (
        "VALUE_TOO_LARGE"
    )
    ground.register({})
    assert ground.refusal("set", id="web", value=big).code == "VALUE_TOO_LARGE"
    for number in range(MAX_CONFIGURATIONS - 1):
        ground.register({}, id=f"n{number}")
    assert ground.refusal("register", id="a", name="", description="", schema={}).code == "TOO_MANY_CONFIGURATIONS"
    ground.register({}, name="again")


def test_a_pattern_cannot_hold_the_worker_up(ground: Ground) -> None:
    ground.register({"pattern": "^(?=a)(a|aa)+(?!b)$"})
    # Without a bound on its steps this would not end before the test's own timeout.
    assert ground.refusal("set", id="web", value="a" * 50_000 + "b").code == "SCHEMA_INVALID"
