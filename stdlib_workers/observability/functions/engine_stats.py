"""What the engine itself reports: its workers with their processes, and its counters.

The worker calls the engine at each scrape and every few seconds. If the engine does not answer in time, only these
numbers are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from iii import InvocationError, TriggerRequestInput, Worker
from stdlib_workers.observability.records.aggregation import Value
from stdlib_workers.observability.records.call_stats import CallStats

T = TypeVar("T")
CALL_TIMEOUT = 2.0
_PROCESS = {"memory_rss": "iii.worker.memory.rss", "cpu_percent": "iii.worker.cpu.percent"}


class EngineStats:
    """Calls the engine's functions for its state of now."""

    def __init__(self, worker: Worker, call_stats: CallStats) -> None:
        self._worker = worker
        self._call_stats = call_stats
        self._counted: dict[str, float] = {}  # by the previous sample

    def workers(self) -> list[dict[str, Any]]:
        """Return the rows of `engine::workers::list`, blocking; empty when the engine does not answer."""
        return self._call("engine::workers::list", "workers", [])

    def counters(self) -> Mapping[str, int]:
        """Return the engine's counters, blocking; empty when it does not answer."""
        return self._call("engine::counters::list", "counters", {})

    def _call(self, function_id: str, field: str, default: T) -> T:
        try:
            result = self._worker.trigger(_request(function_id))
        except InvocationError:
            return default
        value = result.get(field) if isinstance(result, dict) else None
        return value if isinstance(value, type(default)) else default

    async def sample(self, now: int) -> list[Value]:
        """Return the counts of calls and the process metrics as values for the rollups; `now` in nanoseconds."""
        try:
            rows = (await self._worker.trigger_async(_request("engine::workers::list")))["workers"]
        except InvocationError:
            rows = []
        present = [row.get("id") for row in rows if row.get("status") != "disconnected"]
        self._call_stats.active = len(present)
        if present:
            self._call_stats.add_present(present)
        values = values_from(self._call_stats, self._counted, rows, now)
        self._counted = self._call_stats.metrics()
        return values


def _request(function_id: str) -> TriggerRequestInput:
    return {"function_id": function_id, "payload": {}, "timeout_ms": int(CALL_TIMEOUT * 1000)}


def values_from(
    call_stats: CallStats, counted: Mapping[str, float], rows: Sequence[Mapping[str, Any]], now: int
) -> list[Value]:
    """Return a value for each count, and for each metric of a worker's process; `counted` by the last sample. Pure."""
    values = []
    for name, count in call_stats.metrics().items():
        if name == "iii.workers.active":
            values.append(Value(name, now, count))
            continue
        before = counted.get(name, 0)
        values.append(Value(name, now, count - before if count >= before else count, count))
    for row in rows:
        metrics = row.get("metrics") or {}
        values += [Value(name, now, metrics[field]) for field, name in _PROCESS.items() if field in metrics]
    return values
