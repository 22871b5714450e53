"""Loads and figures for the programs beside this file: one call in flight, or a window of them."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable

# A program that serves is told something else.
WINDOW, CALLS = (int(word) for word in sys.argv[1:3]) if sys.argv[1].isdigit() else (1, 1)


def report(latencies: list[float], seconds: float) -> None:
    """Print the figures of a run."""
    median = sorted(latencies)[len(latencies) // 2]
    print(json.dumps({"p50_us": median * 1e6, "calls_per_s": len(latencies) / seconds}), flush=True)


def run_threads(connect: Callable[[], Callable[[], object]]) -> None:
    """Warm up and measure from a thread for each call in flight; `connect` makes the call that a thread repeats."""
    calls = [connect() for _ in range(WINDOW)]
    latencies: list[float] = []

    def repeat(call: Callable[[], object], times: int, noted: list[float]) -> None:
        for _ in range(times):
            begin = time.perf_counter()
            call()
            noted.append(time.perf_counter() - begin)

    def all_of(times: int, noted: list[float]) -> None:
        share = max(1, times // WINDOW)
        threads = [threading.Thread(target=repeat, args=(call, share, noted)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    all_of(max(WINDOW, CALLS // 5), [])
    begin = time.perf_counter()
    all_of(CALLS, latencies)
    report(latencies, time.perf_counter() - begin)


async def run_tasks(call: Callable[[], Awaitable[object]]) -> None:
    """The same from a task for each call in flight."""

    async def repeat(times: int, noted: list[float]) -> None:
        for _ in range(times):
            begin = time.perf_counter()
            await call()
            noted.append(time.perf_counter() - begin)

    async def all_of(times: int, noted: list[float]) -> None:
        share = max(1, times // WINDOW)
        await asyncio.gather(*(repeat(share, noted) for _ in range(WINDOW)))

    await all_of(max(WINDOW, CALLS // 5), [])
    latencies: list[float] = []
    begin = time.perf_counter()
    await all_of(CALLS, latencies)
    report(latencies, time.perf_counter() - begin)
