"""Calls the state worker and an empty function by turns; writes the medians of each load as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from iii import register_worker

plan = json.loads(os.environ["III_CONFIG"])
worker = register_worker()

EMPTY = {"function_id": "bench::echo", "payload": {"a": 2, "b": 3}}
GET = {"function_id": "state::get", "payload": {"scope": "bench", "key": "hot"}}


def set_of(number: int) -> dict[str, Any]:
    """Return a write of one of a thousand keys."""
    return {
        "function_id": "state::set",
        "payload": {"scope": "bench", "key": f"k{number % 1000}", "value": {"n": number}},
    }


async def calls(request: Any, times: int, latencies: list[float]) -> None:
    """Make calls one after the other; `request` may be a function of the call's number."""
    for number in range(times):
        begin = time.perf_counter()
        await worker.trigger_async(request(number) if callable(request) else request)
        latencies.append(time.perf_counter() - begin)


async def load(request: Any, window: int, times: int) -> dict[str, float]:
    """Return the median latency in microseconds and calls per second with `window` calls in flight."""
    latencies: list[float] = []
    begin = time.perf_counter()
    await asyncio.gather(*(calls(request, times // window, latencies) for _ in range(window)))
    seconds = time.perf_counter() - begin
    return {"p50_us": sorted(latencies)[len(latencies) // 2] * 1e6, "calls_per_s": len(latencies) / seconds}


async def main() -> None:
    """Warm up, measure every load once, report."""
    await worker.trigger_async({"function_id": "state::set", "payload": {"scope": "bench", "key": "hot", "value": 1}})
    for request in (EMPTY, GET, set_of):
        await load(request, 64, 640)
    times = plan["calls"]
    figures = {
        "empty": await load(EMPTY, 1, times),
        "get": await load(GET, 1, times),
        "set one": await load(set_of, 1, times // 10),
        "set many": await load(set_of, 64, times),
    }
    Path(plan["report"]).write_text(json.dumps(figures), encoding="utf-8")


asyncio.run(main())
