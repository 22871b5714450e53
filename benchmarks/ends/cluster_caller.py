"""Calls a function of its own engine and one of another engine by turns; writes the figures of both as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from iii import InvocationError, register_worker

plan = json.loads(os.environ["III_CONFIG"])
worker = register_worker()
WAIT = 0.02  # seconds between two looks for the other engine's function


async def calls(function: str, times: int, latencies: list[float]) -> None:
    """Make calls one after the other."""
    for _ in range(times):
        begin = time.perf_counter()
        await worker.trigger_async({"function_id": function, "payload": {"a": 2, "b": 3}})
        latencies.append(time.perf_counter() - begin)


async def load(function: str, window: int, times: int) -> dict[str, float]:
    """Return the median latency in microseconds and calls per second with `window` calls in flight."""
    latencies: list[float] = []
    begin = time.perf_counter()
    await asyncio.gather(*(calls(function, times // window, latencies) for _ in range(window)))
    seconds = time.perf_counter() - begin
    return {"p50_us": sorted(latencies)[len(latencies) // 2] * 1e6, "calls_per_s": len(latencies) / seconds}


async def main() -> None:
    """Wait for the other engine, warm up, measure, report."""
    while True:
        try:
            await load("there::echo", 64, 640)
            break
        except InvocationError:
            await asyncio.sleep(WAIT)
    await load("here::echo", 64, 640)
    figures = {}
    for place in ("here", "there"):
        function = f"{place}::echo"
        figures[place] = {
            "one": await load(function, 1, plan["calls"]),
            "many": await load(function, 64, plan["calls"]),
        }
    Path(plan["report"]).write_text(json.dumps(figures), encoding="utf-8")


asyncio.run(main())
