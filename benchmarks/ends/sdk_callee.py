"""A worker as a user writes it: one sync handler."""

from __future__ import annotations

import json
import os

from iii import register_worker

cpu = json.loads(os.environ["III_CONFIG"])["cpu"]
if cpu >= 0:
    os.sched_setaffinity(0, {cpu})

worker = register_worker()


def echo(payload: dict[str, int]) -> dict[str, int]:
    """Do what a small handler does: read two fields, return one."""
    return {"c": payload["a"] + payload["b"]}


worker.register_function("bench::echo", echo)
