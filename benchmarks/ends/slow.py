"""A neighbor whose handler takes its time, with more calls waiting than it can answer."""

from __future__ import annotations

import threading
import time

from iii import InvocationError, register_worker

WAITING = 64
SECONDS = 0.2
worker = register_worker()


def dawdle(_: object) -> None:
    """Take some time."""
    time.sleep(SECONDS)


def keep_calling() -> None:
    """Have one call waiting at any time."""
    while True:
        try:
            worker.trigger({"function_id": "bench::dawdle", "payload": {}})
        except InvocationError:
            time.sleep(SECONDS)


worker.register_function("bench::dawdle", dawdle)
worker.ready()
for _ in range(WAITING):
    threading.Thread(target=keep_calling, daemon=True).start()
threading.Event().wait()
