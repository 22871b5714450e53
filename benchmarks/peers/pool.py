"""`concurrent.futures.ProcessPoolExecutor` with one process: what the standard library offers."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor

from figures import CALLS, WINDOW, report


def add(payload: dict[str, int]) -> dict[str, int]:
    """Add two numbers."""
    return {"c": payload["a"] + payload["b"]}


def main() -> None:
    """Keep a window of calls in flight."""
    with ProcessPoolExecutor(1) as pool:
        pool.submit(add, {"a": 2, "b": 3}).result()
        waiting: deque[tuple[float, Future[dict[str, int]]]] = deque()
        latencies: list[float] = []
        begin = time.perf_counter()
        for number in range(CALLS):
            waiting.append((time.perf_counter(), pool.submit(add, {"a": 2, "b": 3})))
            if len(waiting) == WINDOW or number == CALLS - 1:
                sent, future = waiting.popleft()
                future.result()
                latencies.append(time.perf_counter() - sent)
        while waiting:
            sent, future = waiting.popleft()
            future.result()
            latencies.append(time.perf_counter() - sent)
        report(latencies, time.perf_counter() - begin)


if __name__ == "__main__":
    main()
