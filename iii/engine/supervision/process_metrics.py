"""Samples the running workers one after another, a little at a time, and keeps the last values.

Owned by the supervisor, which also hears of every sample's memory to hold `max_memory`.

MERGED: What psutil says about a process, as values with the names of the public contract.

A sample costs about 100 microseconds, so the supervisor takes one process at a time and keeps the last value;
what costs milliseconds (`details`) is read only when somebody asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from iii.engine.supervision.critical_tasks import start_critical
from iii.engine.supervision.generation import Generation

if TYPE_CHECKING:
    import psutil

PERIOD = 2.0  # seconds in which every process is sampled once


class ProcessMetrics:
    """The last sample of every running process. `judge(generation, memory_rss)` is called with each."""

    def __init__(self, judge: Callable[[Generation, int], None]) -> None:
        self._judge = judge
        self._probes: dict[int, Probe] = {}
        self._values: dict[int, dict[str, Any]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, running: Callable[[], Iterable[Generation]]) -> None:
        """Begin to sample what `running` returns."""
        if self._task is None:
            self._task = start_critical(self._sample_for_ever(running), "vitals")

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
        probe = self._probes.get(pid)
        if probe is None:
            probe = self._probes[pid] = Probe(pid)
        value = self._values[pid] = probe.sample()
        return value

    def _forget_all_but(self, pids: set[int]) -> None:
        for pid in self._probes.keys() - pids:
            del self._probes[pid]
            self._values.pop(pid, None)


class Probe:
    """Samples one process. `cpu_percent` is the share since the sample before (0 at the first)."""

    def __init__(self, pid: int) -> None:
        # Imported with the first sample: psutil's 15 ms are better spent once the workers are up.
        import psutil

        self.pid = pid
        self._gone = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except self._gone:
            self._process = None

    def sample(self) -> dict[str, Any]:
        """Return memory, CPU, threads and uptime now; empty when the process is gone."""
        if self._process is None:
            return {}
        try:
            return self._read(self._process)
        except self._gone:
            return {}

    def details(self) -> dict[str, Any]:
        """Return memory_uss, open_files and children: milliseconds of work, not for the event loop."""
        if self._process is None:
            return {}
        try:
            return {
                "memory_uss": self._process.memory_full_info().uss,
                "open_files": self._process.num_fds(),
                "children": len(self._process.children(recursive=True)),
            }
        except self._gone:
            return {}

    def _read(self, process: psutil.Process) -> dict[str, Any]:
        cpu = process.cpu_times()
        now = time.time()
        return {
            "memory_rss": process.memory_info().rss,
            "cpu_percent": process.cpu_percent(),
            "cpu_user_micros": int(cpu.user * 1e6),
            "cpu_system_micros": int(cpu.system * 1e6),
            "threads": process.num_threads(),
            "uptime_seconds": round(now - process.create_time(), 3),
            "timestamp_ms": int(now * 1000),
        }
