"""The reader lock between threads and loops: whatever the timing, one of them reads."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from time import monotonic

from iii.worker.runtime.threads import ThreadPool
from tests.support.worker_support import BOUND, in_thread, next_call, pair, piped


class LatePool(ThreadPool):
    """Hands a task over, and comes back only when the new thread has finished with it or gone on to lead."""

    def __init__(self, took_over: threading.Event) -> None:
        super().__init__()
        self._took_over = took_over

    def run(self, task):
        started = super().run(task)
        if task.__qualname__.startswith("Monitor."):
            self._took_over.wait(BOUND)
        return started


def test_a_monitor_that_takes_over_before_its_starter_goes_on_is_replaced():
    took_over = threading.Event()
    with pair(LatePool(took_over)) as (worker, engine):
        worker.register_function("slow::wait", lambda payload: release.wait(BOUND))
        worker.register_function("quick::answer", lambda payload: "here")
        release = threading.Event()
        engine.send({"type": "ping"})
        engine.expect("pong")  # the monitor has become the leader
        took_over.set()
        outcome = in_thread(lambda: worker.trigger("far::away"))
        engine.settle(next_call(engine), result=1)
        assert outcome() == 1
        engine.invoke("slow::wait", invocation_id="slow")
        assert engine.call("quick::answer")["result"] == "here"
        release.set()
        assert engine.result("slow")["result"] is True


def let_the_loop_read(worker, engine):
    """Call an async handler until its loop reads the wire itself."""

    async def echo(payload):
        return payload

    with suppress(ValueError):  # it has it already
        worker.register_function("loop::echo", echo)
    deadline = monotonic() + BOUND
    while worker._reader_lock.loop is None and monotonic() < deadline:
        engine.call("loop::echo", 1)
    assert worker._reader_lock.loop is not None


def test_where_only_coroutines_work_their_loop_reads():
    with piped() as (worker, engine):
        let_the_loop_read(worker, engine)
        for number in range(300):
            engine.invoke("loop::echo", number, f"n{number}")
        assert [engine.result(f"n{number}")["result"] for number in range(300)] == list(range(300))


def test_a_sync_handler_does_not_block_the_loop_that_reads():
    with piped() as (worker, engine):
        release = threading.Event()
        worker.register_function("slow::wait", lambda payload: release.wait(BOUND))
        for _ in range(3):
            let_the_loop_read(worker, engine)
            engine.invoke("slow::wait", invocation_id="slow")
            assert engine.call("loop::echo", 7)["result"] == 7
            release.set()
            assert engine.result("slow")["result"] is True
            release.clear()


def test_a_loop_that_is_blocked_loses_the_wire_to_a_thread():
    with piped() as (worker, engine):
        release = threading.Event()

        async def block(payload):
            return release.wait(BOUND)

        worker.register_function("loop::block", block)
        worker.register_function("sync::answer", lambda payload: "here")
        let_the_loop_read(worker, engine)
        engine.invoke("loop::block", invocation_id="blocked")
        engine.send({"type": "ping"})
        engine.expect("pong")
        assert engine.call("sync::answer")["result"] == "here"
        release.set()
        assert engine.result("blocked")["result"] is True
        let_the_loop_read(worker, engine)


def test_a_cancel_in_the_same_block_as_its_call_is_answered():
    with piped() as (worker, engine):
        let_the_loop_read(worker, engine)
        call = {"type": "invokefunction", "invocation_id": "c1", "function_id": "loop::echo", "data": 1}
        engine.send(call, {"type": "cancel", "invocation_id": "c1"})
        assert engine.result("c1")["error"]["code"] == "cancelled"


def test_calls_go_on_when_the_loop_that_read_is_gone():
    with piped() as (worker, engine):

        async def call_often():
            for number in range(50):
                await worker.trigger_async("far::away", number)
            return worker._reader_lock.loop is asyncio.get_running_loop()

        outcome = in_thread(lambda: asyncio.run(call_often()))
        for number in range(50):
            engine.settle(next_call(engine), result=number)
        assert outcome()
        again = in_thread(lambda: worker.trigger("far::away"))
        engine.settle(next_call(engine), result="back")
        assert again() == "back"


def test_a_blocking_call_on_a_loop_that_reads_gets_its_answer():
    with piped() as (worker, engine):

        async def call():
            for number in range(50):
                await worker.trigger_async("far::away", number)
            blocking = [worker.trigger("far::away", number) for number in range(3)]
            return [*blocking, await worker.trigger_async("far::away")]

        outcome = in_thread(lambda: asyncio.run(call()))
        for number in range(54):
            engine.settle(next_call(engine), result=number)
        assert outcome() == [50, 51, 52, 53]


def test_with_no_thread_left_the_loop_refuses_sync_handlers_and_reads_on():
    thread_pool = ThreadPool(limit=4)
    with piped(thread_pool) as (worker, engine):
        release = threading.Event()
        worker.register_function("slow::wait", lambda payload: release.wait(BOUND))
        let_the_loop_read(worker, engine)
        while thread_pool.run(lambda: release.wait(BOUND)):
            pass
        assert engine.call("slow::wait")["error"]["code"] == "overloaded"
        assert engine.call("loop::echo", 5)["result"] == 5
        release.set()
