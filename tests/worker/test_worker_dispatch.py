"""The token between threads: whatever the timing, somebody reads."""

from __future__ import annotations

import threading

from worker_support import BOUND, in_thread, next_call, pair

from iii.worker.crew import Crew


class LateCrew(Crew):
    """Hands a task over, and comes back only when the new thread has finished with it or gone on to lead."""

    def __init__(self, took_over: threading.Event) -> None:
        super().__init__()
        self._took_over = took_over

    def run(self, task):
        started = super().run(task)
        if getattr(task, "__name__", "") == "_monitor":
            self._took_over.wait(BOUND)
        return started


def test_a_monitor_that_takes_over_before_its_starter_goes_on_is_replaced():
    took_over = threading.Event()
    with pair(LateCrew(took_over)) as (worker, engine):
        worker.register_function("slow::wait", lambda payload: release.wait(BOUND))
        worker.register_function("quick::answer", lambda payload: "here")
        release = threading.Event()
        engine.send({"type": "ping"})
        engine.expect("pong")  # the monitor leads
        took_over.set()
        outcome = in_thread(lambda: worker.trigger("far::away"))
        engine.settle(next_call(engine), result=1)
        assert outcome() == 1
        engine.invoke("slow::wait", invocation_id="slow")
        assert engine.call("quick::answer")["result"] == "here"
        release.set()
        assert engine.result("slow")["result"] is True
