"""A process that is ended before it has begun is never begun, whatever the moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from iii.engine.supervision.generation import Generation
from iii.engine.supervision.hooks import SupervisionContext
from iii.engine.supervision.run import ExitReason, Run
from iii.engine.supervision.start_limiter import StartLimiter
from tests.support.supervising import SERVE, RecordingHooks, environment, worker


async def turns(count: int) -> None:
    """Let everything go on that can."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("moment", ["before its first step", "in the queue", "just admitted"])
def test_a_process_that_is_ended_before_it_runs_is_never_started(moment: str, tmp_path: Path) -> None:
    async def play() -> tuple[list[str], list[ExitReason], str]:
        hooks, ends, limiter = RecordingHooks(), asyncio.Queue[ExitReason](), StartLimiter(places=1)
        spec = worker("a", SERVE, tmp_path)
        context = SupervisionContext(tmp_path, hooks, environment, hooks.on_report, redact=str, start_limiter=limiter)
        generation = Generation(Run("a", 0, 1), spec, context, lambda _, reason: ends.put_nowait(reason))
        another = limiter.enter(lambda: True)  # generation is starting
        generation.start(lambda: True)
        if moment != "before its first step":
            await turns(3)
        if moment == "just admitted":
            limiter.leave(another)
        generation.end("stop", 0.0)
        if moment != "just admitted":
            limiter.leave(another)
        reason = await asyncio.wait_for(ends.get(), 20)
        return hooks.history, [reason], repr(limiter)

    history, (reason,), limiter = asyncio.run(play())
    assert history == []
    assert (reason.words, reason.cause) == ("stopped before it had started", "stop")
    assert limiter == "<StartLimiter 1 free, 0 waiting>"
