"""Enqueues into a paused queue and into an idle one; writes rate and time to the handler's start as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from iii import TriggerAction, register_worker

plan = json.loads(os.environ["III_CONFIG"])
worker = register_worker()
started: asyncio.Queue[float] = asyncio.Queue()
loop = asyncio.new_event_loop()
WINDOW = 64


def note_start(_: Any) -> None:
    """Be the job."""
    loop.call_soon_threadsafe(started.put_nowait, time.perf_counter())


worker.register_function("bench::job", note_start)
QUIET = {"function_id": "bench::job", "payload": {"n": 1}, "action": TriggerAction.Enqueue(queue="quiet")}
IDLE = {"function_id": "bench::job", "payload": {"n": 1}, "action": TriggerAction.Enqueue(queue="default")}


async def enqueue(times: int) -> None:
    """Enqueue one after the other."""
    for _ in range(times):
        await worker.trigger_async(QUIET)


async def rate(times: int) -> float:
    """Return acknowledged enqueues per second with 64 in flight."""
    begin = time.perf_counter()
    await asyncio.gather(*(enqueue(times // WINDOW) for _ in range(WINDOW)))
    return times / (time.perf_counter() - begin)


async def start_us(times: int) -> float:
    """Return the median time from an enqueue to the start of its handler, in microseconds."""
    found: list[float] = []
    for _ in range(times):
        begin = time.perf_counter()
        acknowledged = asyncio.ensure_future(worker.trigger_async(IDLE))
        found.append(await started.get() - begin)
        await acknowledged
    return sorted(found)[times // 2] * 1e6


async def main() -> None:
    """Warm up, measure, report."""
    worker.ready()
    await worker.trigger_async({"function_id": "iii::queue::pause", "payload": {"queue": "quiet"}})
    await rate(640)
    await start_us(20)
    figures = {"rate": await rate(plan["calls"]), "start_us": await start_us(max(50, plan["calls"] // 50))}
    Path(plan["report"]).write_text(json.dumps(figures), encoding="utf-8")


loop.run_until_complete(main())
