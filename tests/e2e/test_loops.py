"""A function that its own events, jobs or output call again for ever is stopped; work that repeats itself goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from iii.engine.routing.causes import EVENT_BURST, JOB_BURST
from tests.support.ground import eventually
from tests.support.live_project import Project, project

TOML = """\
[engine]
listen = "off"
[workers.state]
[workers.queue]
[workers.pubsub]
[workers.stream.config]
port = 0
[workers.observability.config]
prometheus = false
[workers.w]
run = "w.py"
[workers.v]
run = "v.py"
"""
W = """
from collections import Counter
from iii import Logger
counts = Counter()

def write(scope, value):
    worker.trigger("state::set", {"scope": scope, "key": "k", "value": value})

def on_own_key(event):
    counts["state"] += 1
    write("own", counts["state"])

def on_step(event):
    counts["steps"] += 1
    if event["new_value"] < 60: write("steps", event["new_value"] + 1)

def on_own_item(event):
    counts["stream"] += 1
    item = {"stream_name": "own", "group_id": "g", "item_id": "i", "data": {"n": counts["stream"]}}
    worker.trigger("stream::set", item)

def on_own_topic(message):
    counts["pubsub"] += 1
    worker.trigger("publish", {"topic": "own", "data": message})

def enqueue(function_id, payload, **options):
    action = TriggerAction.Enqueue(queue="default", **options)
    worker.trigger({"function_id": function_id, "payload": payload, "action": action})

def twice(payload):
    counts["jobs"] += 1
    enqueue("w::twice", {})
    enqueue("w::twice", {})

def page(payload):
    counts["pages"] += 1
    if payload["n"] < 200: enqueue("w::page", {"n": payload["n"] + 1})

def on_record(record):
    counts["records"] += 1
    print("a record came")
    Logger().info("so it did")
    worker.trigger("v::speak", {})

for function in (on_own_key, on_step, on_own_item, on_own_topic, twice, page, on_record):
    worker.register_function(f"w::{function.__name__}", function)
worker.register_function("w::counts", lambda _: counts)
worker.register_function("w::print", lambda _: print("one line"))
for kind, function, config in (
    ("state", "on_own_key", {"scope": "own"}), ("state", "on_step", {"scope": "steps"}),
    ("stream", "on_own_item", {"stream_name": "own"}), ("subscribe", "on_own_topic", {"topic": "own"}),
):
    worker.register_trigger({"type": kind, "function_id": f"w::{function}", "config": config})
worker.register_function("w::listen", lambda _: worker.register_trigger(
    {"type": "log", "function_id": "w::on_record", "config": {"level": "info"}}) and None)
"""
V = """
worker.register_function("v::speak", lambda _: print("v speaks"))
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder: Path = tmp_path_factory.mktemp("loops")
    with project(folder, TOML, {"w": W, "v": V}) as made:
        yield made


def count(running: Project, name: str) -> int:
    number: int = running.call("w::counts").get(name, 0)
    return number


@pytest.mark.parametrize(
    ("name", "function_id", "payload", "by"),
    [
        ("state", "state::set", {"scope": "own", "key": "k", "value": 0}, "w::on_own_key -> state::set"),
        ("stream", "stream::set", {"stream_name": "own", "group_id": "g", "item_id": "i", "data": {}}, "stream::set"),
        ("pubsub", "publish", {"topic": "own", "data": 1}, "w::on_own_topic -> publish"),
        ("jobs", "w::twice", {}, "w::twice -> action enqueue"),
    ],
)
def test_a_loop_is_stopped_with_one_line(
    running: Project, name: str, function_id: str, payload: dict[str, object], by: str
) -> None:
    running.call(function_id, payload)
    [line] = running.wait(f"stopped a loop: {by}" if "->" in by else f"-> {by} ->")[:1]
    assert "! stopped a loop" in line
    reached = count(running, name)
    assert EVENT_BURST < reached < (JOB_BURST if name == "jobs" else EVENT_BURST) * 1.3
    running.call("w::print")  # what else there is to do is done
    assert count(running, name) <= reached + 5


@pytest.mark.parametrize(
    ("name", "function_id", "payload", "expected"),
    [
        ("steps", "state::set", {"scope": "steps", "key": "k", "value": 1}, 60),
        ("pages", "w::page", {"n": 1}, 200),
    ],
)
def test_work_that_repeats_itself_is_done(
    running: Project, name: str, function_id: str, payload: dict[str, object], expected: int
) -> None:
    running.call(function_id, payload)
    eventually(lambda: count(running, name) == expected)


def test_a_log_function_is_not_told_of_what_it_has_caused(running: Project) -> None:
    running.call("w::listen")
    running.call("w::print")
    running.wait("one line")
    eventually(lambda: count(running, "records") >= 1)
    running.wait("v speaks")
    running.wait("so it did")
    before = count(running, "records")
    running.call("w::print")
    running.wait("one line", count=2)
    # What nothing of its own has caused, it is told of: once the output of its last call is over.
    eventually(lambda: running.call("v::speak") or count(running, "records") > before)
    assert count(running, "records") <= before + 50  # those of one batch, and not thousands
