"""Starts flows, and writes how long they take, how many steps a second there are, and how late they wake, as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from iii import register_worker

plan = json.loads(os.environ["III_CONFIG"])
worker = register_worker()
WINDOW = 64
STEPS = 5
# How far ahead and apart sleeping runs are due: each is alone when it wakes.
AHEAD, APART = 1.0, 0.02


async def run_of(function_id: str, payload: Any) -> Any:
    """Start a run and return its result."""
    request = {"function_id": function_id, "payload": payload, "wait": True}
    return await worker.trigger_async({"function_id": "flow::start", "payload": request, "timeout_ms": 60_000})


async def five() -> None:
    """Make a run of five steps."""
    await run_of("bench::five", {"number": STEPS})


async def write() -> None:
    """Write a key."""
    await worker.trigger_async(
        {"function_id": "state::set", "payload": {"scope": "bench", "key": str(time.monotonic_ns()), "value": 1}}
    )


async def one_by_one(call: Callable[[], Awaitable[None]], times: int) -> float:
    """Return the median time of a call in microseconds."""
    latencies = []
    for _ in range(times):
        begin = time.perf_counter()
        await call()
        latencies.append(time.perf_counter() - begin)
    return sorted(latencies)[times // 2] * 1e6


async def at_once(call: Callable[[], Awaitable[None]], times: int) -> float:
    """Return the calls per second with 64 in flight."""

    async def some() -> None:
        for _ in range(times // WINDOW):
            await call()

    begin = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(WINDOW)))
    return times // WINDOW * WINDOW / (time.perf_counter() - begin)


async def lateness(times: int) -> list[float]:
    """Return how many milliseconds late sleeping runs went on, least first."""
    begin = time.time() + AHEAD
    runs = [run_of("bench::sleep", {"until": begin + number * APART}) for number in range(times)]
    return sorted(await asyncio.gather(*runs))


async def main() -> None:
    """Warm up, measure, report."""
    worker.ready()
    times = plan["runs"]
    await at_once(five, WINDOW)
    await at_once(write, WINDOW)
    figures: dict[str, float] = {
        "five_us": await one_by_one(five, times),
        "steps_per_s": STEPS * await at_once(five, times * 4),
        "sets_per_s": await at_once(write, times * 20),
    }
    late = await lateness(max(20, times // 2))
    figures |= {"wake_p50_ms": late[len(late) // 2], "wake_p99_ms": late[len(late) * 99 // 100]}
    Path(plan["report"]).write_text(json.dumps(figures), encoding="utf-8")


asyncio.run(main())
