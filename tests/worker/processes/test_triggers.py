"""Trigger types and bindings between real workers: in any order, through restarts, refused, conditional, durable."""

from __future__ import annotations

import pytest

from iii import InvocationError
from tests.support.live_project import project

TOML = """
[engine]
listen = "off"
[workers.shop]
run = "shop.py"
[workers.clock]
run = "clock.py"
after = ["shop"]
"""

CLOCK = """
class Ticks:
    def __init__(self):
        self.bindings = {}

    def register_trigger(self, binding):
        if binding.config.get("every") == 0:
            raise InvocationError("too_fast", "every must be more than 0")
        self.bindings[binding.id] = binding
        say("bound", binding.function_id)

    def unregister_trigger(self, binding):
        say("unbound", self.bindings.pop(binding.id).function_id)

ticks = Ticks()
worker.register_trigger_type({"id": "tick", "description": "Fires when told to"}, ticks)

@worker.function("clock::tick")
def tick(payload):
    return [worker.fire(binding, payload) for binding in list(ticks.bindings.values())]

@worker.function("clock::tick_async")
async def tick_async(payload):
    return [await worker.fire_async(binding, payload) for binding in list(ticks.bindings.values())]

@worker.function("clock::bindings")
def bindings():
    return list(ticks.bindings)
"""

SHOP = """
worker.register_function("shop::first", lambda payload, metadata=None: ["first", payload, metadata])
worker.register_function("shop::second", lambda payload, metadata=None: ["second", payload, metadata])
worker.register_function("shop::is_even", lambda payload: payload["n"] % 2 == 0)
worker.register_function("shop::unsure", lambda payload: None)
first = worker.register_trigger(
    {"type": "tick", "function_id": "shop::first", "config": {}, "metadata": {"who": "ada"}})
second = worker.register_trigger(
    {"type": "tick", "function_id": "shop::second", "config": {"condition_function_id": "shop::is_even"}})
worker.register_trigger({"type": "tick", "function_id": "shop::refused", "config": {"every": 0}})
worker.register_function("shop::stop", lambda _: first.unregister())
worker.register_function("shop::hear", lambda payload: say("heard", payload["change"], payload["by"]))
worker.register_function("shop::bind", lambda payload: worker.register_trigger(payload) and None)
"""


@pytest.fixture
def running(tmp_path):
    with project(tmp_path, TOML, {"clock": CLOCK, "shop": SHOP}) as made:
        made.wait("@ bound shop::second")
        yield made


def test_bindings_made_before_their_type_reach_its_provider_in_order(running):
    assert running.said("bound ")[:2] == ["bound shop::first", "bound shop::second"]


@pytest.mark.parametrize("tick", ["clock::tick", "clock::tick_async"])
def test_a_fired_binding_carries_its_metadata_and_asks_its_condition(running, tick):
    assert running.call(tick, {"n": 1}) == [["first", {"n": 1}, {"who": "ada"}], None]
    assert running.call(tick, {"n": 2})[1] == ["second", {"n": 2}, None]


def test_a_provider_that_died_gets_the_same_ids_again_in_order(running):
    before = running.call("clock::bindings")
    seen = len(running.lines)
    running.call("engine::workers::restart", {"name": "clock"})
    running.wait("@ bound shop::second", after=seen)
    assert running.call("clock::bindings") == before
    assert len(before) == 2


def test_a_restarted_binder_keeps_its_bindings_and_the_provider_hears_nothing(running):
    before = running.call("clock::bindings")
    seen = len(running.lines)
    running.call("engine::workers::restart", {"name": "shop"})
    assert running.call("clock::bindings") == before
    assert running.said("unbound", after=seen) == []


def test_a_refusal_reaches_the_binder_in_the_providers_words(running):
    (line,) = running.wait("was refused")
    assert line.endswith("the tick trigger of shop::refused was refused: too_fast: every must be more than 0")


def test_an_unregistered_binding_is_gone_at_the_provider(running):
    running.call("shop::stop")
    running.wait("unbound shop::first")
    assert [result and result[0] for result in running.call("clock::tick", {"n": 2})] == ["second"]


def bind(running, **fields):
    request = {"trigger_type": "tick", "function_id": "shop::first", "config": {}, **fields}
    return running.call("engine::register_trigger", request)["id"]


def test_a_durable_binding_is_in_place_when_the_call_returns_and_outlives_everybody(running):
    id = bind(running, metadata={"durable": True})
    assert running.call("clock::tick", {"n": 1})[2] == ["first", {"n": 1}, {"durable": True}]
    running.call("engine::workers::restart", {"name": "clock"})
    running.wait("@ bound shop::first", count=4)
    assert running.call("clock::bindings")[2] == id
    assert running.call("engine::unregister_trigger", {"id": id}) == {"removed": True}
    assert running.call("engine::unregister_trigger", {"id": id}) == {"removed": False}
    assert id not in running.call("clock::bindings")


def test_a_refused_durable_binding_is_an_error_and_leaves_nothing(running):
    with pytest.raises(InvocationError, match="every must be more than 0") as caught:
        bind(running, config={"every": 0})
    assert caught.value.code == "trigger_registration_failed"
    assert len(running.call("engine::registered-triggers::list")["registered_triggers"]) == 2


def test_a_durable_binding_may_wait_for_its_provider(running):
    id = bind(running, trigger_type="comet")
    found = running.call("engine::registered-triggers::info", {"id": id})
    assert found["trigger"] is None


def test_a_durable_binding_without_a_function_is_refused(running):
    with pytest.raises(InvocationError, match="function_id") as caught:
        running.call("engine::register_trigger", {"trigger_type": "tick"})
    assert caught.value.code == "deserialization_error"


def arguments(**sources):
    return {"payload": "arguments", "arguments": sources}


def test_a_binding_may_take_the_functions_arguments_out_of_the_event(running):
    config = arguments(n={"in": "event", "name": "order.n", "required": True}, by={"value": "ada"})
    bind(running, config={**config, "condition_function_id": "shop::is_even"})
    assert running.call("clock::tick", {"n": 2, "order": {"n": 3}})[2] == ["first", {"n": 3, "by": "ada"}, None]
    assert running.call("clock::tick", {"n": 1, "order": {"n": 3}})[2] is None
    with pytest.raises(
        InvocationError, match=r"shop::first no arguments: event\.order\.n: expected a value, got nothing"
    ):
        running.call("clock::tick", {"n": 2})


def test_the_engines_own_events_give_arguments_too(running):
    config = arguments(change={"in": "event", "name": "event"}, by={"value": "ada"})
    bind(running, trigger_type="engine::workers-available", function_id="shop::hear", config=config)
    running.call("engine::workers::restart", {"name": "clock"})
    running.wait("@ heard worker_disconnected ada")


def test_a_wrong_mapping_is_refused_for_every_type_and_leaves_nothing(running):
    for trigger_type in ("tick", "comet", "engine::workers-available"):
        with pytest.raises(InvocationError, match=r'arguments\.n: in must be "event", got "query"') as caught:
            bind(running, trigger_type=trigger_type, config=arguments(n={"in": "query"}))
        assert caught.value.code == "trigger_registration_failed"
    assert len(running.call("engine::registered-triggers::list")["registered_triggers"]) == 2
    running.call("shop::bind", {"type": "tick", "function_id": "shop::second", "config": arguments(n={"in": "query"})})
    running.wait("the tick trigger of shop::second was refused: trigger_registration_failed: arguments.n")
    running.call(
        "shop::bind",
        {"type": "engine::workers-available", "function_id": "shop::first", "config": arguments(n={"in": "path"})},
    )
    running.wait("the engine::workers-available trigger of shop::first was refused: trigger_registration_failed")
