"""The loops of an engine in memory: when they rest, and a clock that stands still."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from iii.testing import Engine
from iii.testing.loops import Activity, ClockLoop, WatchedLoop

BOUND = 30.0


@contextmanager
def running(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(BOUND)
        loop.close()


def wait_for_rest(activity: Activity) -> list[int]:
    while (seen := activity.seen()) is None:
        activity.wait(BOUND)
    return seen


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Let threads take turns as often as they can, so that each finds the others in the middle of things."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("switching_often")
@pytest.mark.parametrize("kind", [WatchedLoop, ClockLoop])
def test_a_loop_rests_only_when_everything_it_was_given_is_done(kind):
    activity = Activity()
    loop = kind(activity)
    with running(loop):
        for _ in range(500):
            done: list[int] = []

            async def work(done: list[int] = done) -> None:
                for _ in range(3):
                    await asyncio.sleep(0)
                done.append(1)

            wakers = [threading.Thread(target=asyncio.run_coroutine_threadsafe, args=(work(), loop)) for _ in range(2)]
            for waker in wakers:
                waker.start()
            for waker in wakers:
                waker.join(BOUND)
            wait_for_rest(activity)
            assert done == [1, 1]


def test_a_loop_that_was_woken_between_two_looks_has_seen_more():
    activity = Activity()
    loop = WatchedLoop(activity)
    with running(loop):
        before = wait_for_rest(activity)
        loop.call_soon_threadsafe(lambda: None)
        assert wait_for_rest(activity) > before
    assert activity.seen() is not None  # closed


def test_timers_of_a_clock_wait_until_it_is_moved_and_come_in_their_order():
    activity = Activity()
    loop = ClockLoop(activity)
    fired: list[str] = []
    with running(loop):

        def arm() -> None:
            loop.call_later(2, fired.append, "second")
            loop.call_later(1, fired.append, "first")
            loop.call_later(1, fired.append, "canceled").cancel()

        loop.call_soon_threadsafe(arm)
        wait_for_rest(activity)
        assert (fired, loop.next_timer()) == ([], 1)
        for now in (1, 2):
            loop.call_soon_threadsafe(setattr, loop, "now", now)
            wait_for_rest(activity)
        assert (fired, loop.next_timer(), loop.time()) == (["first", "second"], None, 2)


def test_an_idle_engine_waits_for_no_timer():
    with Engine(["state", "stream", "pubsub", "queue", "cron", "http"]) as engine:
        engine.call("state::set", scope="s", key="k", value=1)
        engine.advance("1h")
        assert engine._core.do(engine._core.loop.next_timer) is None
