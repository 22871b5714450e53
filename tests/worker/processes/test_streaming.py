"""Results that come bit by bit: generators, sync and async, to callers that iterate, and to those that do not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cli.trigger.run import progress_line
from tests.support.live_project import BOUND, ROOT, project

TOML = """
[engine]
listen = "off"
[workers.source]
run = "source.py"
[workers.sink]
run = "sink.py"
"""

SOURCE = """
import asyncio
gate = threading.Event()

@worker.function("source::count")
def count(n: int):
    for i in range(n):
        yield {"i": i}

@worker.function("source::acount")
async def acount(n: int):
    for i in range(n):
        await asyncio.sleep(0)
        yield {"i": i}

@worker.function("source::gated")
def gated():
    yield "before"
    yield "opened" if gate.wait(20) else "never opened"

def forever(_):
    try:
        while True:
            yield 1
            gate.wait(0.001)
    finally:
        say("closed")

async def aforever(_):
    try:
        while True:
            yield 1
            await asyncio.sleep(0.001)
    finally:
        say("async closed")

def fails(_):
    yield 1
    raise InvocationError("broken", "no more")

def work(_):
    for done in (1, 2):
        current_invocation().report_progress(done, 2, f"step {done}")
    return "done"

made = 0

def flood(payload):
    global made
    made = 0
    for _ in range(payload["count"]):
        made += 1
        yield "x" * payload["size"]

def wait_for_made(least):
    while made < least:
        gate.wait(0.01)

async def aflood(payload):
    for item in flood(payload):
        yield item

worker.register_function("source::made", lambda _: made)
worker.register_function("source::await_made", lambda least: wait_for_made(least))
worker.register_function("source::open", lambda _: gate.set())
for handler in (forever, aforever, fails, work, flood, aflood):
    worker.register_function(f"source::{handler.__name__}", handler)
"""

SINK = """
import asyncio
from iii import Worker
def take(payload):
    return list(worker.stream(payload["of"], payload.get("with")))

async def atake(payload):
    return [item async for item in worker.stream_async(payload["of"], payload.get("with"))]

def between(_):
    items = worker.stream("source::gated", {})
    first = next(items)
    worker.trigger("source::open")
    return [first, next(items)]

def leave(of):
    items = worker.stream(of)
    next(items)
    items.close()

async def aleave(of):
    items = worker.stream_async(of)
    await anext(items)
    await items.aclose()

def keeps(_):
    got = []
    try:
        for item in worker.stream("source::fails"):
            got.append(item)
    except InvocationError as error:
        got.append(error.code)
    return got

def progress(_):
    seen = []
    return [list(worker.stream("source::work", on_progress=seen.append)), seen, worker.trigger("source::work")]

def settled(_=None):
    # How many items the source has made once it makes no more.
    before, steady = -1, 0
    while steady < 5:
        made = worker.trigger("source::made")
        steady = steady + 1 if made == before else 0
        before = made
        threading.Event().wait(0.05)
    return made

def slow(payload):
    import resource
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    items = worker.stream(payload["of"], payload["with"])
    next(items)
    ahead = settled()
    count = 1 + sum(1 for _ in items)
    return [count, ahead, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]

async def aslow(payload):
    items = worker.stream_async(payload["of"], payload["with"])
    await anext(items)
    ahead = await asyncio.to_thread(settled)
    return [1 + len([None async for _ in items]), ahead, 0]

for handler in (settled, slow, aslow, take, atake, between, leave, aleave, keeps, progress):
    worker.register_function(f"sink::{handler.__name__}", handler)
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with project(tmp_path_factory.mktemp("streaming"), TOML, {"source": SOURCE, "sink": SINK}) as made:
        yield made


@pytest.mark.parametrize("taker", ["sink::take", "sink::atake"])
@pytest.mark.parametrize("source", ["source::count", "source::acount"])
def test_the_items_of_a_generator_arrive_in_order(running, taker, source):
    assert running.call(taker, {"of": source, "with": {"n": 500}}) == [{"i": i} for i in range(500)]


@pytest.mark.parametrize("source", ["source::count", "source::acount"])
def test_a_caller_that_does_not_iterate_gets_them_as_a_list(running, source):
    assert running.call(source, {"n": 3}) == [{"i": 0}, {"i": 1}, {"i": 2}]


def test_an_item_is_there_before_the_next_one_is_made(running):
    assert running.call("sink::between") == ["before", "opened"]


@pytest.mark.parametrize("taker", ["sink::take", "sink::atake"])
def test_any_other_function_yields_its_one_result(running, taker):
    assert running.call(taker, {"of": "source::work"}) == ["done"]
    assert running.call(taker, {"of": "source::open"}) == []


@pytest.mark.parametrize("leaver", ["sink::leave", "sink::aleave"])
@pytest.mark.parametrize(("source", "words"), [("source::forever", "@ closed"), ("source::aforever", "@ async closed")])
def test_a_caller_that_leaves_early_ends_the_generator(running, leaver, source, words):
    seen = len(running.lines)
    running.call(leaver, source)
    running.wait(words, after=seen)


@pytest.mark.parametrize("taker", ["sink::slow", "sink::aslow"])
@pytest.mark.parametrize("source", ["source::flood", "source::aflood"])
def test_a_slow_caller_holds_the_generator_back_and_loses_nothing(running, taker, source):
    wanted = {"count": 600, "size": 64 * 1024}
    count, ahead, grown_kib = running.call(taker, {"of": source, "with": wanted})
    assert count == 600
    assert ahead <= 2 + 1024 * 1024 // wanted["size"]
    assert grown_kib < 16 * 1024


def test_small_items_are_held_back_by_their_number(running):
    count, ahead, _ = running.call("sink::slow", {"of": "source::flood", "with": {"count": 5000, "size": 1}})
    assert count == 5000
    assert ahead <= 2 + 64


def test_an_error_comes_after_the_items_before_it(running):
    assert running.call("sink::keeps") == [1, "broken"]


def test_progress_reaches_those_who_stream_and_costs_others_nothing(running):
    reports = [{"done": 1, "total": 2, "message": "step 1"}, {"done": 2, "total": 2, "message": "step 2"}]
    assert running.call("sink::progress") == [["done"], reports, "done"]


def test_the_terminal_prints_each_item_as_it_comes(running):
    words = [sys.executable, "-u", "-m", "cli.main", "trigger", "source::forever"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, cwd=running.folder, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(3)]
        process.kill()
        process.wait(BOUND)
    assert first == [b"1\n"] * 3


def test_a_slow_reader_of_the_terminals_output_holds_the_source_back_and_loses_nothing(running):
    words = [sys.executable, "-m", "cli.main", "trigger", "source::flood", "count=400", "size=100000", "--raw"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, cwd=running.folder, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        running.call("source::await_made", 5)
        ahead = running.call("sink::settled")
        count = 1 + sum(len(line) == len(first) for line in process.stdout)
        assert process.wait(BOUND) == 0
    assert count == 400
    assert ahead < 20


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        ({"done": 1, "total": 4, "message": "read"}, "[#####...............] 25% read"),
        ({"done": 9, "total": 4}, "[####################] 100%"),
        ({"done": 3, "message": "rows\x1b[2J"}, "3 rows[2J"),
        ({"done": 3, "total": 0}, "3"),
    ],
)
def test_progress_is_shown_as_a_bar(progress, line):
    assert progress_line(progress) == line
