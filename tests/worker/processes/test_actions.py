"""Trigger actions that a worker provides: from workers, in both forms, and from the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from iii import InvocationError
from tests.support.live_project import BOUND, ROOT, project

TOML = """
[engine]
listen = "off"
[workers.timer]
run = "timer.py"
[workers.shop]
run = "shop.py"
"""

TIMER = """
def twice(call):
    if "function_id" not in call:
        raise InvocationError("no_function", "nothing to call")
    request = {"function_id": call["function_id"], "payload": call["data"], "metadata": call["metadata"]}
    return [worker.trigger(request), worker.trigger(request), call["action"]["note"]]

action = worker.register_trigger_action("twice", twice, description="Call it two times")
worker.register_function("timer::withdraw", lambda _: action.unregister())
"""

SHOP = """
worker.register_function("shop::echo", lambda payload, metadata=None: [payload, metadata])
request = {"function_id": "shop::echo", "payload": 1, "metadata": {"k": 2}}
by_object = lambda _: worker.trigger({**request, "action": TriggerAction.of("twice", note="hi")})
by_dict = lambda _: worker.trigger({**request, "action": {"type": "twice", "note": "hi"}})
worker.register_function("shop::by_object", by_object)
worker.register_function("shop::by_dict", by_dict)
worker.register_function("shop::void", lambda _: worker.trigger({**request, "action": TriggerAction.of("lost")}))
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with project(tmp_path_factory.mktemp("actions"), TOML, {"timer": TIMER, "shop": SHOP}) as made:
        yield made


@pytest.mark.parametrize("form", ["shop::by_object", "shop::by_dict"])
def test_an_action_decides_how_the_call_is_made_and_its_result_is_the_callers(running, form):
    assert running.call(form) == [[1, {"k": 2}], [1, {"k": 2}], "hi"]


def test_the_terminal_names_actions_too(running):
    words = ["trigger", "shop::echo", "--json", "5", "--action", '{"type": "twice", "note": "now"}', "--raw"]
    run = subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=running.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert run.stdout == '[[5,null],[5,null],"now"]\n', run.stderr


def test_an_unknown_action_names_those_that_exist(running):
    with pytest.raises(InvocationError, match=r"unknown trigger action 'lost'; there are: twice, void") as caught:
        running.call("shop::void")
    assert caught.value.code == "action_not_found"


def test_a_withdrawn_action_is_unknown(running):
    running.call("timer::withdraw")
    with pytest.raises(InvocationError, match="there are: void"):
        running.call("shop::by_dict")
