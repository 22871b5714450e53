"""Sync callers: one thread for each call in flight, each blocking in `trigger`."""

from __future__ import annotations

import threading
import time

from figures import REQUEST, Stopwatch, settings

from iii import register_worker

plan = settings()
worker = register_worker()


def call(times: int, latencies: list[float]) -> None:
    """Make calls one after the other."""
    for _ in range(times):
        begin = time.perf_counter()
        worker.trigger(REQUEST)
        latencies.append(time.perf_counter() - begin)


def run(calls: int, latencies: list[float]) -> None:
    """Share the calls out to as many threads as calls shall be in flight."""
    share = max(1, calls // plan.window)
    threads = [threading.Thread(target=call, args=(share, latencies)) for _ in range(plan.window)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


run(plan.calls // 5, [])
stopwatch = Stopwatch()
run(plan.calls, stopwatch.latencies)
stopwatch.report(plan.report)
