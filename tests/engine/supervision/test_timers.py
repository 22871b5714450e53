"""A timer counts down once, from when it was last armed, unless it is canceled."""

from __future__ import annotations

import asyncio

from iii.engine.supervision.timers import Timers


def expired_after(delay: float, *steps: str) -> list[str]:
    """Arm a timer, do the steps, and return what was called within a moment."""

    async def play() -> list[str]:
        called: list[str] = []
        timers = Timers()
        for step in ("arm", *steps):
            arguments = {"arm": ("a", delay, lambda: called.append("a")), "cancel": ("a",), "clear": ()}[step]
            getattr(timers, step)(*arguments)
        for _ in range(100):
            await asyncio.sleep(0.001)  # time in which the timer could fire
            if called:
                break
        assert "a" not in timers or delay == 60.0
        timers.clear()
        return called

    return asyncio.run(play())


def test_a_timer_expires_once() -> None:
    assert expired_after(0.01) == ["a"]
    assert expired_after(0.01, "arm", "arm") == ["a"]


def test_a_timer_that_is_canceled_or_not_due_yet_does_not_expire() -> None:
    assert expired_after(0.01, "cancel") == []
    assert expired_after(0.01, "clear") == []
    assert expired_after(60.0) == []
