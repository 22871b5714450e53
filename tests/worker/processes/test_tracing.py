"""Trace context and baggage go along with every call: sync, async, through threads, triggers and actions."""

from __future__ import annotations

import pytest

from tests.support.live_project import project

TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "baggage": "tenant=acme"}
# The engine names the function that is called, as the public contract has it.
SEEN = {**TRACE, "baggage": "tenant=acme,iii.function.id=back::seen"}

TOML = """
[engine]
listen = "off"
[workers.front]
run = "front.py"
[workers.back]
run = "back.py"
"""

FRONT = """
import asyncio, contextvars

async def in_tasks(_):
    return await asyncio.gather(worker.trigger_async("back::seen"), asyncio.to_thread(worker.trigger, "back::seen"))

def in_thread(_):
    result = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: result.append(context.run(worker.trigger, "back::seen")))
    thread.start()
    thread.join()
    return result[0]

worker.register_function("front::plain", lambda _: worker.trigger("back::seen"))
worker.register_function("front::action", lambda _: worker.trigger(
    {"function_id": "back::seen", "action": TriggerAction.of("relay")}))
worker.register_function("front::event", lambda _: worker.trigger("back::fire")[0])
for handler in (in_tasks, in_thread):
    worker.register_function(f"front::{handler.__name__}", handler)
"""

BACK = """
from iii import TriggerHandler
bindings = []

class Bell(TriggerHandler):
    def register_trigger(self, binding):
        bindings.append(binding)
        say("bound")

def seen(_):
    here = current_invocation()
    return {"traceparent": here.traceparent, "baggage": here.baggage}

worker.register_function("back::seen", seen)
worker.register_trigger_action("relay", lambda call: worker.trigger(call["function_id"], call["data"]))
worker.register_trigger_type({"id": "bell"}, Bell())
worker.register_trigger({"type": "bell", "function_id": "back::seen", "config": {}})
worker.register_function("back::fire", lambda _: [worker.fire(binding) for binding in bindings])
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with project(tmp_path_factory.mktemp("tracing"), TOML, {"front": FRONT, "back": BACK}) as made:
        made.wait("bound")
        yield made


@pytest.mark.parametrize("function_id", ["front::plain", "front::in_thread", "front::action", "front::event"])
def test_a_trace_goes_on_through_every_kind_of_call(running, function_id):
    assert running.call(function_id, **TRACE) == SEEN


def test_tasks_and_their_threads_carry_it(running):
    assert running.call("front::in_tasks", **TRACE) == [SEEN, SEEN]


def test_without_a_trace_none_is_made_up(running):
    assert running.call("front::plain") == {"traceparent": None, "baggage": None}
