"""Decorators and handles against the real standard workers: what is written fires, and what is enqueued runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iii import InvocationError
from tests.support.live_project import Project, project

TOML = """
[engine]
listen = "off"
[workers.state.config]
store_method = "in_memory"
[workers.stream.config]
store_method = "in_memory"
port = 0
[workers.pubsub]
[workers.queue.config]
adapter = { name = "builtin", config = { store_method = "in_memory" } }
[workers.shop]
run = "shop.py"
[workers.eager]
run = "eager.py"
[workers.early]
run = "early.py"
[workers.cron]
"""

# It enqueues before it is ready: the queue worker has not heard of what it declares.
EAGER = """
@worker.queue("eager", retries=4)
def take(note: str, metadata: object = None):
    say("took", note, metadata["iii.job"]["max_attempts"])

take.enqueue(note="first")
put = TriggerAction.Enqueue(queue="eager")
worker.trigger({"function_id": "eager::take", "payload": {"note": "second"}, "action": put})

@worker.queue("eager-twin")
async def take_async(note: str):
    say("took", note)
    await take_later.enqueue_async(note="fourth")

@worker.queue("eager-later")
def take_later(note: str):
    say("took", note)

take_async.using(delay="1ms").enqueue(note="third")
worker.ready()

@worker.queue("eager-last")
def take_last(note: str):
    say("took", note)

# What the engine has heard of a moment ago it passes on before this.
put = TriggerAction.Enqueue(queue="eager-last")
worker.trigger({"function_id": "eager::take_last", "payload": {"note": "last"}, "action": put})
"""

# It does the same without any handle, in the plain form and in a coroutine, before it is ready.
EARLY = """
import asyncio
import time

def take(payload):
    say("took", payload["note"])

worker.register_function("early::take", take)
for name in ("early", "early-twin"):
    config = {"queue": name, "max_retries": 2}
    worker.register_trigger({"type": "queue", "function_id": "early::take", "config": config})

first = worker.trigger(
    {"function_id": "early::take", "payload": {"note": "early"}, "action": TriggerAction.Enqueue(queue="early")}
)
say("receipt", sorted(first))
put = {"type": "enqueue", "queue": "early-twin"}
second = {"function_id": "early::take", "payload": {"note": "early twin"}, "action": put}
asyncio.run(worker.trigger_async(second))
try:
    worker.trigger({**second, "action": TriggerAction.Enqueue(queue="nobodys")})
except InvocationError as error:
    say("refused", error.code, error.details["reason"])
schedule = {"id": "early", "function_id": "early::take", "at": 1, "payload": {"note": "early cron"}}
worker.trigger("cron::schedule", schedule)

@worker.subscribe("early.topic")
@worker.on_state("early")
def heard(note: str):
    noted(note)

@worker.on_stream("early")
def saw(note: str):
    noted(note)

missing = {"message", "state", "item"}

def noted(note):
    if note in missing:
        missing.discard(note)
        say("heard", note)

worker.ready()
while missing:
    worker.publish("early.topic", {"note": "message"})
    worker.state("early")["x"] = {"note": "state"}
    worker.stream_group("early", "g")["x"] = {"note": "item"}
    time.sleep(0.05)  # until those who serve the triggers have them
"""

SHOP = """
from dataclasses import dataclass
from iii import Entry

@dataclass
class Link:
    url: str
    hits: int = 0

links = worker.state("links", Link)
room = worker.stream_group("chat", "room-1", Link)

@worker.queue("mail", retries=2, backoff="10ms")
def mail(to: str, fails: int = 0, metadata: object = None):
    attempt = metadata["iii.job"]["attempt"]
    say("mail", to, attempt, metadata["iii.job"]["max_attempts"])
    if attempt <= fails:
        raise ValueError("no network")

@worker.function("shop::state")
def state() -> list:
    assert links.get("x") is None and links.get("x", Link("none")) == Link("none")
    assert "x" not in links and links.entry("x") is None
    assert links.add("x", Link("https://a.example")) is True
    assert links.add("x", Link("https://z.example")) is False
    first = links.entry("x")
    assert isinstance(first, Entry) and first.value == Link("https://a.example"), first
    links.set("x", Link("https://b.example"), if_version=first.version)
    try:
        links.set("x", Link("https://c.example"), if_version=first.version)
    except InvocationError as error:
        assert error.code == "CONFLICT", error
    try:
        links["nothing"]
    except KeyError as error:
        assert error.args == ("nothing",)
    hit = links.update("x", {"type": "increment", "path": "hits", "by": 2})
    assert hit == Link("https://b.example", 2) == links["x"], hit
    try:
        links.update("x", {"type": "increment", "path": "url", "by": 1})
    except InvocationError as error:
        assert error.code == "OPS_DO_NOT_FIT", error
        said = error.message
    links["y"] = Link("https://y.example")
    assert list(links) == ["x", "y"] and "y" in links
    assert links.list() == [hit, Link("https://y.example")]
    del links["x"]
    return [links.delete("y").url, links.delete("y"), said]

@worker.function("shop::stream")
def stream() -> list:
    room["a"] = Link("https://a.example")
    assert room.update("a", {"type": "increment", "path": "hits", "by": 1}).hits == 1
    assert room["a"] == Link("https://a.example", 1) and "b" not in room
    room.send("typing", {"by": "ada"})
    listed = room.list()
    del room["a"]
    return [listed[0].url, room.delete("a"), room.get("a", Link("none")).url]

@worker.function("shop::twins")
async def twins() -> list:
    await links.set_async("z", Link("https://z.example"), expected=None)
    assert await links.add_async("z", Link("https://a.example")) is False
    assert await links.add_async("zz", Link("https://z.example")) is True
    await links.delete_async("zz")
    entry = await links.entry_async("z")
    hits = (await links.update_async("z", {"type": "increment", "path": "hits", "by": 3})).hits
    same = [await links.get_async("z"), *await links.list_async(), await links.delete_async("z")]
    await room.set_async("a", Link("https://z.example"))
    await room.update_async("a", {"type": "increment", "path": "hits", "by": 3})
    await room.send_async("typing")
    same += [await room.get_async("a"), *await room.list_async(), await room.delete_async("a")]
    assert same == [Link("https://z.example", 3)] * 6, same
    await worker.publish_async("orders.new", {"id": 8})
    await mail.enqueue_async("bob")
    return [entry.version, hits]

@worker.function("shop::send")
def send() -> str:
    worker.publish("orders.new", {"id": 7, "link": {"url": "u"}})
    return mail.using(key="once").enqueue(to="ada", fails=1).messageReceiptId
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with project(tmp_path_factory.mktemp("handles"), TOML, {"shop": SHOP, "eager": EAGER, "early": EARLY}) as made:
        yield made


def test_a_scope_of_the_state_is_a_mapping_of_typed_values(running: Project) -> None:
    url, nothing, said = running.call("shop::state")
    assert (url, nothing) == ("https://y.example", None)
    assert said.startswith("1 of the operations do not fit: ")


def test_a_group_of_a_stream_is_a_mapping_of_typed_items(running: Project) -> None:
    assert running.call("shop::stream") == ["https://a.example", None, "none"]


def test_every_handle_has_async_twins(running: Project) -> None:
    version, hits = running.call("shop::twins")
    assert (version > 0, hits) == (True, 3)
    assert running.wait("mail bob") == ["mail bob 1 2"]


def test_a_queue_that_a_function_brings_along_has_its_retries(running: Project) -> None:
    receipt = running.call("shop::send")
    assert running.wait("mail ada", count=2) == ["mail ada 1 2", "mail ada 2 2"]
    assert len(receipt) == 36
    assert running.call("shop::send") == receipt


def test_a_function_can_be_enqueued_as_soon_as_it_is_declared(running: Project) -> None:
    for said in ("first 4", "second 4", "third", "fourth", "last"):
        assert set(running.wait(f"took {said}")) == {f"took {said}"}  # once for each process of the worker


def test_a_plain_enqueue_finds_the_queue_that_its_worker_has_declared_before_it_was_ready(running: Project) -> None:
    for note in ("early", "early twin", "early cron"):
        running.wait(f"@ took {note}")
    running.wait("@ receipt ['messageReceiptId']")
    running.wait("@ refused enqueue_error queue_not_found")


def test_a_worker_that_is_ready_hears_what_it_does_itself(running: Project) -> None:
    for what in ("message", "state", "item"):
        running.wait(f"@ heard {what}")


def test_a_call_from_outside_that_does_not_fit_is_refused_before_the_function_runs(running: Project) -> None:
    with pytest.raises(InvocationError, match="shop::mail: to is missing"):
        running.call("shop::mail", {"fails": 1})
