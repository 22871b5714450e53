"""Memory, CPU and threads of the running workers, sampled with psutil.

Samples one process after another, spread over an interval (a sample costs about 100 microseconds), and keeps the last
values under the names of the public contract. The supervisor is called with the memory of every sample, to hold
`max_memory`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from iii.engine.supervision.critical_tasks import start_critical
from iii.engine.supervision.generation import Generation

if TYPE_CHECKING:
    import psutil

SAMPLE_INTERVAL = 2.0  # seconds in which every process is sampled once


class ProcessMetrics:
    """The last sample of every running process. `on_memory(generation, memory_rss)` is called with each."""

    def __init__(self, on_memory: Callable[[Generation, int], None]) -> None:
        self._on_memory = on_memory
        self._processes: dict[int, psutil.Process] = {}
        self._samples: dict[int, dict[str, Any]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, running: Callable[[], Iterable[Generation]]) -> None:
        """Begin to sample the generations that `running` returns."""
        if self._task is None:
            self._task = start_critical(self._sample_for_ever(running), "vitals")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def of(self, generation: Generation | None) -> Mapping[str, Any]:
        """Return the last sample of a generation, and take one if there is none yet; empty without a process."""
        if generation is None or generation.process is None:
            return {}
        return self._samples.get(generation.process.pid) or self._sample(generation.process.pid)

    async def _sample_for_ever(self, running: Callable[[], Iterable[Generation]]) -> None:
        while True:
            generations = [generation for generation in running() if generation.process is not None]
            pids = {generation.process.pid for generation in generations if generation.process}
            for pid in self._samples.keys() - pids:
                del self._samples[pid]
                self._processes.pop(pid, None)
            for generation in generations:
                if generation.process is not None:
                    self._on_memory(generation, self._sample(generation.process.pid).get("memory_rss", 0))
                await asyncio.sleep(SAMPLE_INTERVAL / len(generations))
            if not generations:
                await asyncio.sleep(SAMPLE_INTERVAL)

    def _sample(self, pid: int) -> dict[str, Any]:
        """Return memory, CPU, threads and uptime now; empty when the process is gone, or no descriptor is free to look.

        `cpu_percent` is the share since the sample before (0 at the first).
        """
        import psutil  # with the first sample: psutil's 15 ms are better spent once the workers are up

        sample = {}
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):  # a zombie counts as no process
            process = self._processes.get(pid) or psutil.Process(pid)
            self._processes[pid] = process
            cpu = process.cpu_times()
            now = time.time()
            sample = {
                "memory_rss": process.memory_info().rss,
                "cpu_percent": process.cpu_percent(),
                "cpu_user_micros": int(cpu.user * 1e6),
                "cpu_system_micros": int(cpu.system * 1e6),
                "threads": process.num_threads(),
                "uptime_seconds": round(now - process.create_time(), 3),
                "timestamp_ms": int(now * 1000),
            }
        self._samples[pid] = sample
        return sample
