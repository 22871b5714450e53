"""The official SDK at both ends of a WebSocket router: `official.py WINDOW CALLS URL`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from figures import run_tasks

from iii import InitOptions, register_worker

TRIES = 40
REQUEST = {"function_id": "bench::add", "payload": {"a": 2, "b": 3}}


def add(payload: dict[str, int]) -> dict[str, int]:
    """Add two numbers."""
    return {"c": payload["a"] + payload["b"]}


def serve(url: str) -> None:
    """Be the callee until the caller is done."""
    worker = register_worker(url, InitOptions(worker_name="callee"))
    worker.register_function("bench::add", add)
    sys.stdin.read()


async def main(url: str) -> None:
    """Call it once it answers."""
    worker = register_worker(url, InitOptions(worker_name="caller"))
    await first_answer(worker)
    await run_tasks(lambda: worker.trigger_async(REQUEST))


async def first_answer(worker: object) -> None:
    """Call until the callee has registered. TimeoutError when it never does."""
    for _ in range(TRIES):
        try:
            await asyncio.wait_for(worker.trigger_async({**REQUEST, "timeout_ms": 500}), 1)  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - of another project's making: whatever it is, the callee is not there yet
            await asyncio.sleep(0.05)
        else:
            return
    raise TimeoutError("the callee has not registered")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        callee = subprocess.Popen([sys.executable, __file__, "serve", sys.argv[3]], stdin=subprocess.PIPE)
        try:
            asyncio.run(main(sys.argv[3]))
        finally:
            callee.kill()
            callee.communicate()
        os._exit(0)  # threads of the SDK would keep the process
