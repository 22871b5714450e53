"""One file, three ways to run it: under the engine, by hand over WebSocket, and on the official SDK."""

from __future__ import annotations

import pytest

from tests.support import three_ways
from tests.support.live_project import ROOT, Project

SCRIPT = ROOT / "examples" / "portable.py"


def is_bound(made: Project) -> bool:
    """Whether both of the script's bindings are there."""
    rows = made.call("engine::registered-triggers::list", {"trigger_type": "mail"})["registered_triggers"]
    return len(rows) == 2


@pytest.fixture(scope="module", params=three_ways.WAYS)
def running(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("portable")
    with three_ways.running(request.param, folder, [SCRIPT], is_bound) as made:
        yield made


def test_functions_answer(running):
    assert running.call("portable::hello", {"name": "Ada"}) == {"message": "Hello, Ada!"}


def test_functions_call_others(running):
    assert running.call("portable::hello_twice", {"name": "Ada"}) == ["Hello, Ada!"] * 2


@pytest.mark.parametrize(("text", "folders"), [("hi", ["inbox", "short"]), ("a long, long letter", ["inbox"])])
def test_triggers_fire_with_conditions_and_metadata(running, text, folders):
    got = running.call("portable::receive", {"from": "bob", "text": text})
    assert got == [{"from": "bob", "folder": folder} for folder in folders]


def test_channels_stream(running):
    assert running.call("portable::shout", {"text": "hello"}) == {"text": "HELLO"}
