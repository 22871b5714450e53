"""Samples the running workers one after another, a little at a time, and keeps the last values.

Owned by the supervisor, which also hears of every sample's memory to hold `max_memory`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from iii.engine.essential import start_essential
from iii.engine.generation import Generation

if TYPE_CHECKING:
    from iii.engine.metrics import Probe

PERIOD = 2.0  # seconds in which every process is sampled once


class Vitals:
    """The last sample of every running process. `judge(generation, memory_rss)` is called with each."""

    def __init__(self, judge: Callable[[Generation, int], None]) -> None:
        self._judge = judge
        self._probes: dict[int, Probe] = {}
        self._values: dict[int, dict[str, Any]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, running: Callable[[], Iterable[Generation]]) -> None:
        """Begin to sample what `running` returns."""
        if self._task is None:
            self._task = start_essential(self._sample_for_ever(running), "vitals")

    def stop(self) -> None:
        """Sample no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def of(self, generation: Generation | None) -> Mapping[str, Any]:
        """Return the last sample; the first time anybody asks, take one."""
        if generation is None or generation.process is None:
            return {}
        return self._values.get(generation.process.pid) or self._sample(generation.process.pid)

    async def _sample_for_ever(self, running: Callable[[], Iterable[Generation]]) -> None:
        while True:
            generations = [generation for generation in running() if generation.process is not None]
            self._forget_all_but({generation.process.pid for generation in generations if generation.process})
            for generation in generations:
                if generation.process is not None:
                    self._judge(generation, self._sample(generation.process.pid).get("memory_rss", 0))
                await asyncio.sleep(PERIOD / len(generations))
            if not generations:
                await asyncio.sleep(PERIOD)

    def _sample(self, pid: int) -> dict[str, Any]:
        # Imported with the first sample: psutil's 15 ms are better spent once the workers are up.
        from iii.engine.metrics import Probe  # noqa: PLC0415

        probe = self._probes.get(pid)
        if probe is None:
            probe = self._probes[pid] = Probe(pid)
        value = self._values[pid] = probe.sample()
        return value

    def _forget_all_but(self, pids: set[int]) -> None:
        for pid in self._probes.keys() - pids:
            del self._probes[pid]
            self._values.pop(pid, None)
