"""What a script registers, and what the engine is told of it; trigger types and their providers."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import pytest

from iii import InitOptions, TriggerConfig, TriggerHandler, TriggerTypeRef
from iii.protocol import RegisterTriggerInput, RegisterTriggerTypeInput
from tests.support.worker_support import BOUND, pair


def test_the_first_line_introduces_the_worker():
    with pair(options=InitOptions(worker_name="shop", namespace="eu")) as (_, engine):
        first = engine.expect("invokefunction")
    assert first["function_id"] == "engine::workers::register"
    assert first["action"] == {"type": "void"}
    assert "invocation_id" not in first
    assert (first["data"]["name"], first["data"]["namespace"], first["data"]["runtime"]) == ("shop", "eu", "python")


def test_a_function_is_announced_with_what_is_known_of_it(joined):
    worker, engine = joined

    def add(payload: dict) -> int:
        """Add."""

    worker.register_function("m::add", add, metadata={"tier": 1}, response_format={"type": "integer"})
    message = engine.expect("registerfunction")
    assert message["description"] == "Add."
    assert message["metadata"] == {"tier": 1}
    assert message["response_format"] == {"type": "integer"}
    assert message["source"]["file"] == __file__


@pytest.mark.parametrize("function_id", ["", "  ", None])
def test_a_blank_id_is_refused(joined, function_id):
    with pytest.raises(ValueError, match="service::name"):
        joined[0].register_function(function_id, print)


def test_a_handler_that_cannot_be_called_is_refused(joined):
    with pytest.raises(TypeError, match="callable"):
        joined[0].register_function("m::f", 5)


def test_an_id_is_taken_until_it_is_withdrawn(joined):
    worker, engine = joined
    function = worker.register_function("m::f", lambda p: 1)
    with pytest.raises(ValueError, match="already"):
        worker.register_function("m::f", lambda p: 2)
    function.unregister()
    assert engine.expect("unregisterfunction") == {"type": "unregisterfunction", "id": "m::f"}
    worker.register_function("m::f", lambda p: 3)
    assert engine.call("m::f")["result"] == 3


def test_a_trigger_is_bound_and_withdrawn_by_the_same_id(joined):
    worker, engine = joined
    trigger = worker.register_trigger({"type": "cron", "function_id": "m::f", "config": {"expression": "* * * * *"}})
    bound = engine.expect("registertrigger")
    assert (bound["id"], bound["trigger_type"], bound["function_id"]) == (trigger.id, "cron", "m::f")
    trigger.unregister()
    assert engine.expect("unregistertrigger")["id"] == trigger.id


def test_a_trigger_without_a_function_is_refused(joined):
    with pytest.raises(ValueError, match="a trigger needs a function_id, not None"):
        joined[0].register_trigger({"type": "cron"})


def test_a_trigger_is_bound_by_an_object_with_the_fields(joined):
    worker, engine = joined
    worker.register_trigger(
        RegisterTriggerInput("cron", "m::f", {"expression": "x"}, {"team": "a"}, trigger_namespace="t")
    )
    bound = engine.expect("registertrigger")
    wanted = {"trigger_type": "cron", "function_id": "m::f", "config": {"expression": "x"}, "metadata": {"team": "a"}}
    assert {key: bound[key] for key in wanted} == wanted
    assert bound["trigger_namespace"] == "t"
    with pytest.raises(ValueError, match="a trigger needs a type, not ''"):
        worker.register_trigger(RegisterTriggerInput("", "m::f"))


def test_a_type_registers_triggers_and_functions_of_its_own(joined):
    worker, engine = joined
    kind = worker.register_trigger_type(RegisterTriggerTypeInput("tick", "Ticks"), Recorder())
    kind.register_function("m::f", lambda event: event + 1, description="Counts")
    assert engine.expect("registerfunction")["description"] == "Counts"

    class Every:
        def model_dump(self):
            return {"seconds": 5}

    kind.register_trigger("m::f", Every(), {"team": "a"})
    bound = engine.expect("registertrigger")
    assert (bound["trigger_type"], bound["config"], bound["metadata"]) == ("tick", {"seconds": 5}, {"team": "a"})
    assert engine.call("m::f", 1)["result"] == 2
    worker.unregister_trigger_type(RegisterTriggerTypeInput("tick"))
    assert engine.expect("unregistertriggertype")["id"] == "tick"


def test_the_formats_of_a_type_may_be_classes(joined):
    worker, engine = joined

    @dataclass
    class Every:
        seconds: int

    worker.register_trigger_type({"id": "tick", "trigger_request_format": Every}, Recorder())
    schema = engine.expect("registertriggertype")["trigger_request_format"]
    assert schema["properties"]["seconds"]["type"] == "integer"

    @dataclass
    class Wrong:
        seconds: Nowhere  # noqa: F821 - what the test is about

    with pytest.raises(TypeError, match=r"the call_request_format of the trigger type tock: .*Nowhere"):
        worker.register_trigger_type({"id": "tock", "call_request_format": Wrong}, Recorder())
    assert "tock" not in worker._receiver.providers


@pytest.mark.parametrize("cls", [TriggerConfig, TriggerHandler, TriggerTypeRef])
def test_the_public_sdks_generic_classes_take_their_arguments(cls):
    assert cls[dict] is cls
    assert issubclass(type("Own", (cls[dict],), {}), cls)


def test_an_action_is_a_function_with_a_name_for_callers(joined):
    worker, engine = joined
    worker.register_trigger_action("delay", lambda request: request["action"]["seconds"], options_format={})
    action = engine.expect("registeraction")
    assert action["id"] == "delay"
    assert engine.call(action["function_id"], {"action": {"type": "delay", "seconds": 5}})["result"] == 5


class Recorder(TriggerHandler):
    def __init__(self):
        self.bound: list[TriggerConfig] = []
        self.unbound = threading.Event()

    def register_trigger(self, config):
        if config.config == "bad":
            raise ValueError("bad config")
        self.bound.append(config)

    def unregister_trigger(self, config):
        self.unbound.set()


class AsyncRecorder(Recorder):
    async def register_trigger(self, config):
        await asyncio.sleep(0)
        super().register_trigger(config)

    async def unregister_trigger(self, config):
        super().unregister_trigger(config)


@pytest.mark.parametrize("make", [Recorder, AsyncRecorder])
def test_a_provider_accepts_refuses_and_releases_bindings(joined, make):
    worker, engine = joined
    provider = make()
    kind = worker.register_trigger_type({"id": "tick", "description": "Ticks"}, provider)
    assert engine.expect("registertriggertype")["description"] == "Ticks"
    bind = {"type": "registertrigger", "trigger_type": "tick", "function_id": "o::f"}
    engine.send({**bind, "id": "t1", "config": {"s": 1}, "metadata": {"m": 1}, "namespace": "eu"})
    assert "error" not in engine.expect("triggerregistrationresult", id="t1")
    assert (provider.bound[0].config, provider.bound[0].namespace) == ({"s": 1}, "eu")
    engine.send({**bind, "id": "t2", "config": "bad"})
    error = engine.expect("triggerregistrationresult", id="t2")["error"]
    assert error == {"code": "trigger_registration_failed", "message": "bad config"}
    engine.send({"type": "unregistertrigger", "id": "t1", "trigger_type": "tick"})
    assert provider.unbound.wait(BOUND)
    kind.unregister()
    assert engine.expect("unregistertriggertype")["id"] == "tick"


def test_a_binding_of_an_unknown_type_is_refused(joined):
    _, engine = joined
    engine.send({"type": "registertrigger", "id": "t", "trigger_type": "no", "function_id": "f"})
    assert engine.expect("triggerregistrationresult")["error"]["code"] == "trigger_type_not_found"


def test_a_provider_hears_of_its_bindings_one_after_the_other_however_long_it_takes(joined):
    worker, engine = joined
    begun, release = threading.Event(), threading.Event()
    seen = []

    class Provider(TriggerHandler):
        def register_trigger(self, config):
            if config.id == "a":
                begun.set()
                assert release.wait(BOUND)
            seen.append(config.id)

    worker.register_trigger_type({"id": "tick"}, Provider())
    for id in ("a", "b", "c"):
        engine.send({"type": "registertrigger", "id": id, "trigger_type": "tick", "function_id": "m::f", "config": {}})
    assert begun.wait(BOUND)
    worker.register_function("m::busy", lambda _: list(seen))
    assert engine.call("m::busy")["result"] == []
    release.set()
    engine.expect("triggerregistrationresult", id="c")
    assert seen == ["a", "b", "c"]
