"""One file, three ways to run it: under the engine, by hand over WebSocket, and on the official SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import pytest
from live_project import BOUND, ROOT, Project, project
from official import python_with

SCRIPT = ROOT / "examples" / "portable.py"


@contextmanager
def supervised(folder) -> Iterator[Project]:
    with project(folder, f'[workers.portable]\nrun = "{SCRIPT}"\n', {}) as made:
        yield made


def wait_until_ready(made: Project) -> None:
    """Wait for the script's last registration; the engine's own trigger says when it is worth another look."""
    deadline = monotonic() + BOUND
    with made.connect() as connection:
        binding = {"type": "registertrigger", "id": "watch", "trigger_type": "engine::functions-available"}
        connection.send({"type": "registerfunction", "id": "test::changed"})
        connection.send({**binding, "function_id": "test::changed", "config": {}})
        while not bound(made):
            assert monotonic() < deadline, "the script registered nothing"
            with suppress(TimeoutError):
                connection.receive(0.1)


def bound(made: Project) -> bool:
    """Whether both of the script's bindings are there."""
    rows = made.call("engine::registered-triggers::list", {"trigger_type": "mail"})["registered_triggers"]
    return len(rows) == 2


@contextmanager
def by_hand(folder, command: list[str], **environment: str) -> Iterator[Project]:
    """An engine whose own worker does nothing, and the script started beside it."""
    with project(folder, '[workers.idle]\nrun = "idle.py"\n', {"idle": ""}) as made:
        url = json.loads((folder / ".iii" / "run" / "engine.json").read_text())["url"]
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("III_", "PYTHON"))}
        script = subprocess.Popen(
            [*command, str(SCRIPT)],
            env=plain | {"III_URL": url, "OTEL_ENABLED": "false"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_ready(made)
            yield made
        finally:
            script.terminate()
            script.wait(BOUND)


@pytest.fixture(scope="module", params=["supervised", "by hand", "official"])
def running(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("portable")
    ways = {
        "supervised": lambda: supervised(folder),
        "by hand": lambda: by_hand(folder, [sys.executable], PYTHONPATH=str(ROOT)),
        "official": lambda: by_hand(folder, [str(python_with("0.25.0")), "-W", "ignore"]),
    }
    with ways[request.param]() as made:
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
