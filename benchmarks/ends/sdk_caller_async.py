"""An async caller: one loop, one task for each call in flight."""

from __future__ import annotations

import asyncio
import time

from figures import REQUEST, Stopwatch, settings

from iii import register_worker

plan = settings()
worker = register_worker()


async def call(times: int, latencies: list[float]) -> None:
    """Make calls one after the other."""
    for _ in range(times):
        begin = time.perf_counter()
        await worker.trigger_async(REQUEST)
        latencies.append(time.perf_counter() - begin)


async def run(calls: int, latencies: list[float]) -> None:
    """Share the calls out to as many tasks as calls shall be in flight."""
    share = max(1, calls // plan.window)
    await asyncio.gather(*(call(share, latencies) for _ in range(plan.window)))


async def main() -> None:
    """Warm up, measure, report."""
    await run(plan.calls // 5, [])
    stopwatch = Stopwatch()
    await run(plan.calls, stopwatch.latencies)
    stopwatch.report(plan.report)


asyncio.run(main())
