"""A process is ready once it has been silent for its timeout."""

from __future__ import annotations

import asyncio

from iii.engine.readiness_timers import ReadinessTimers
from iii.engine.supervision.run import Run

RUN = Run("a", 0, 1)


def ready_after(timeout: float | None, *steps: str) -> list[Run]:
    """Restart the timer, do the steps, and return the processes that became ready within a moment."""

    async def play() -> list[Run]:
        ready: list[Run] = []
        timers = ReadinessTimers(lambda run: timeout, ready.append)
        timers.restart(RUN)
        for step in steps:
            getattr(timers, step)(*([RUN] if step != "close" else []))
        for _ in range(100):
            await asyncio.sleep(0.001)
            if ready:
                break
        assert RUN not in timers or timeout == 60.0
        timers.close()
        return ready

    return asyncio.run(play())


def test_silence_makes_a_process_ready_once() -> None:
    assert ready_after(0.01) == [RUN]
    assert ready_after(0.01, "restart", "restart") == [RUN]


def test_a_process_whose_silence_says_nothing_is_not_waited_for() -> None:
    assert ready_after(None) == []


def test_a_process_that_is_gone_or_not_silent_yet_is_not_ready() -> None:
    assert ready_after(0.01, "cancel") == []
    assert ready_after(0.01, "close") == []
    assert ready_after(60.0) == []
