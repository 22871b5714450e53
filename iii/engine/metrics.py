"""What psutil says about a process, as values with the names of the public contract.

A sample costs about 100 microseconds, so the supervisor takes one process at a time and keeps the last value;
what costs milliseconds (`details`) is read only when somebody asks.
"""

from __future__ import annotations

import time
from typing import Any

import psutil

_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)


class Probe:
    """Samples one process. `cpu_percent` is the share since the sample before (0 at the first)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except _GONE:
            self._process = None

    def sample(self) -> dict[str, Any]:
        """Return memory, CPU, threads and uptime now; empty when the process is gone."""
        if self._process is None:
            return {}
        try:
            return self._read(self._process)
        except _GONE:
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
        except _GONE:
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
