"""An async worker: its handlers share one event loop, so many calls wait at the same time on one thread."""

import asyncio
from typing import Any

from iii import register_worker

worker = register_worker()


@worker.function("async::sum")
async def total(numbers: list[float]) -> dict[str, float]:
    """Sum numbers in pairs, all pairs of a round at the same time, each pair a call of math::add."""
    while len(numbers) > 1:
        pairs = zip(numbers[::2], numbers[1::2], strict=False)
        odd = numbers[len(numbers) - len(numbers) % 2 :]
        numbers = [*await asyncio.gather(*(add(a, b) for a, b in pairs)), *odd]
    return {"sum": numbers[0] if numbers else 0.0}


async def add(a: float, b: float) -> float:
    """Add by asking the math worker, without blocking the loop."""
    result: dict[str, float] = await worker.trigger_async({"function_id": "math::add", "payload": {"a": a, "b": b}})
    return result["c"]


@worker.function("async::sleep")
async def sleep(seconds: float = 1.0) -> dict[str, Any]:
    """Wait, then answer. A caller that gives up (`--timeout-ms`) cancels it."""
    await asyncio.sleep(seconds)
    return {"slept": seconds}
