"""What the SDK callers share: their settings, and the report in the words of native/caller.c."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

REQUEST = {"function_id": "bench::echo", "payload": {"a": 2, "b": 3}}


@dataclass(frozen=True)
class Settings:
    """The worker's `config` table."""

    report: str
    window: int
    calls: int
    cpu: int


def settings() -> Settings:
    """Read them, and move to the CPU they name."""
    found = Settings(**json.loads(os.environ["III_CONFIG"]))
    if found.cpu >= 0:
        os.sched_setaffinity(0, {found.cpu})
    return found


class Stopwatch:
    """Latencies of a run. `relay_cpu_us` is the engine's main thread, as the kernel accounts it."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self._engine = Path(f"/proc/{os.getppid()}/schedstat")
        self._cpu = self._engine_cpu()
        self._begin = time.perf_counter()

    def _engine_cpu(self) -> int:
        return int(self._engine.read_text().split()[0]) if self._engine.exists() else 0

    def report(self, path: str) -> None:
        """Write the figures."""
        seconds, cpu = time.perf_counter() - self._begin, self._engine_cpu() - self._cpu
        ordered, calls = sorted(self.latencies), len(self.latencies)
        figures = {
            "p50_us": ordered[calls // 2] * 1e6,
            "p99_us": ordered[calls * 99 // 100] * 1e6,
            "calls_per_s": calls / seconds,
            "relay_cpu_us": cpu / 1e3 / calls,
        }
        Path(path).write_text(json.dumps(figures), encoding="utf-8")
