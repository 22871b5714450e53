"""Giving up, many calls at once, and calls that wait for themselves: what only real workers can show."""

from __future__ import annotations

import pytest

from iii import InvocationError
from tests.support.live_project import project

TOML = """
[engine]
listen = "off"
[workers.slow]
run = "slow.py"
[workers.crowd]
run = "crowd.py"
concurrency = 32
[workers.caller]
run = "caller.py"
[workers.ping]
run = "ping.py"
concurrency = 1
[workers.pong]
run = "pong.py"
concurrency = 1
"""

SLOW = """
import asyncio, time

async def waits(_):
    say("async began")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        say("async cancelled")
        raise

def looks(_):
    say("sync began")
    until = time.monotonic() + 60
    while not current_invocation().cancelled and time.monotonic() < until:
        time.sleep(0.01)
    say("sync cancelled", current_invocation().cancelled)

worker.register_function("slow::async", waits)
worker.register_function("slow::sync", looks)
worker.register_function("slow::quick", lambda _: "quick")
"""

CROWD = """
import resource, time
lock, now, most = threading.Lock(), 0, 0

def work(payload):
    global now, most
    with lock:
        now += 1
        most = max(most, now)
    time.sleep(0.002)
    with lock:
        now -= 1
    return payload

worker.register_function("crowd::work", work)
worker.register_function("crowd::most", lambda _: [
    most, threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])
"""

CALLER = """
import asyncio

async def thousand(_):
    calls = [worker.trigger_async({"function_id": "crowd::work", "payload": n}) for n in range(1000)]
    return await asyncio.gather(*calls) == list(range(1000))

worker.register_function("caller::thousand", thousand)
worker.register_function("caller::slow", lambda id: worker.trigger({"function_id": id, "timeout_ms": 300}))
"""


def passes_on(own, other):
    return f'worker.register_function("{own}::go", lambda _: worker.trigger("{other}::go"))\n'


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    workers = {
        "slow": SLOW,
        "crowd": CROWD,
        "caller": CALLER,
        "ping": passes_on("ping", "pong"),
        "pong": passes_on("pong", "ping"),
    }
    with project(tmp_path_factory.mktemp("cancelling"), TOML, workers) as made:
        yield made


@pytest.mark.parametrize(
    ("function_id", "words"), [("slow::async", "async cancelled"), ("slow::sync", "sync cancelled True")]
)
def test_a_caller_that_gives_up_cancels_the_handler_while_others_are_served(running, function_id, words):
    with pytest.raises(InvocationError) as caught:
        running.call("caller::slow", function_id)
    assert caught.value.code == "TIMEOUT"
    assert running.call("slow::quick") == "quick"
    running.wait(words)


def test_a_thousand_calls_at_once_all_come_back_and_never_exceed_the_concurrency(running):
    _, _, kib_before = running.call("crowd::most")
    assert running.call("caller::thousand") is True
    most, threads, kib = running.call("crowd::most")
    assert most <= 32
    assert threads <= 64
    assert kib - kib_before < 32 * 1024


def test_two_workers_of_one_thread_that_call_each_other_are_told_at_once(running):
    with pytest.raises(InvocationError, match="ping::go -> pong::go -> ping::go") as caught:
        running.call("ping::go")
    assert caught.value.code == "deadlock_detected"
