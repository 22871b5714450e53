"""A process that is ended before it has begun is never begun, whatever the moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from iii.engine.config.spec import ProjectSpec
from iii.engine.supervision.generation import Generation
from iii.engine.supervision.hooks import Ground
from iii.engine.supervision.run import ExitReason, Run
from iii.engine.supervision.start_limiter import Gate
from tests.support.supervising import SERVE, Root, environment, worker


async def turns(count: int) -> None:
    """Let everything go on that can."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("moment", ["before its first step", "in the queue", "just admitted"])
def test_a_process_that_is_ended_before_it_runs_is_never_started(moment: str, tmp_path: Path) -> None:
    async def play() -> tuple[list[str], list[ExitReason], str]:
        root, ends, gate = Root(), asyncio.Queue[ExitReason](), Gate(places=1)
        spec = worker("a", SERVE, tmp_path)
        project = ProjectSpec(tmp_path, "test", tmp_path / "iii.toml", workers={"a": spec})
        ground = Ground(project, root, environment, root.on_report, gate)
        generation = Generation(Run("a", 0, 1), spec, ground, lambda _, reason: ends.put_nowait(reason))
        gate.enter(lambda: True)  # somebody else is starting
        generation.start(lambda: True)
        if moment != "before its first step":
            await turns(3)
        if moment == "just admitted":
            gate.leave()
        generation.end("stop", 0.0)
        if moment != "just admitted":
            gate.leave()
        reason = await asyncio.wait_for(ends.get(), 20)
        return root.history, [reason], repr(gate)

    history, (reason,), gate = asyncio.run(play())
    assert history == []
    assert (reason.words, reason.cause) == ("stopped before it had started", "stop")
    assert gate == "<Gate 1 free, 0 waiting>"
