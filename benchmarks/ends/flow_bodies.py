"""The flows that `flow_caller.py` starts: five local steps, a sleep to a moment, and a wait for ever."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from iii import Flow, register_worker

worker = register_worker()


@worker.flow("bench::five")
def five(flow: Flow, number: int) -> int:
    """Make five steps."""
    return sum(flow.step("step", int, number) for number in range(number))


@worker.flow("bench::sleep")
def sleep(flow: Flow, until: float) -> float:
    """Return how many milliseconds after its time it went on."""
    flow.sleep_until(datetime.fromtimestamp(until, UTC))
    return (time.time() - until) * 1000


@worker.flow("bench::wait")
def wait(flow: Flow, number: int) -> int:
    """Be parked."""
    flow.wait("go")
    return number
