"""What the engine itself is asked: its workers with their processes, and its counters.

Asked at each scrape and every few seconds; an engine that does not answer in time costs only these figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iii import InvocationError, TriggerRequestInput, Worker
from stdlib_workers.observability.records.aggregation import Value
from stdlib_workers.observability.records.call_stats import Figures

TIMEOUT_MS = 2000
_PROCESS = {"memory_rss": "iii.worker.memory.rss", "cpu_percent": "iii.worker.cpu.percent"}


class EngineStats:
    """The engine's answers, of now."""

    def __init__(self, worker: Worker, figures: Figures) -> None:
        self._worker = worker
        self._figures = figures

    def workers(self) -> list[dict[str, Any]]:
        """Return the rows of the workers, blocking; empty when the engine does not answer."""
        found = self._ask("engine::workers::list").get("workers")
        return found if isinstance(found, list) else []

    def counters(self) -> Mapping[str, int]:
        """Return the engine's counters, blocking; empty when it does not answer."""
        found = self._ask("engine::counters::list").get("counters")
        return found if isinstance(found, dict) else {}

    def _ask(self, function_id: str) -> dict[str, Any]:
        try:
            found = self._worker.trigger({"function_id": function_id, "payload": {}, "timeout_ms": TIMEOUT_MS})
        except InvocationError:
            return {}
        return found if isinstance(found, dict) else {}

    async def sample(self, now: int) -> list[Value]:
        """Return the engine's figures and the workers' processes as values for the rollups; `now` in nanoseconds."""
        request: TriggerRequestInput = {"function_id": "engine::workers::list", "payload": {}, "timeout_ms": TIMEOUT_MS}
        try:
            rows = (await self._worker.trigger_async(request))["workers"]
        except InvocationError:
            rows = []
        self._figures.active = sum(row.get("status") != "disconnected" for row in rows)
        return values_from(self._figures, rows, now)


def values_from(figures: Figures, rows: Sequence[Mapping[str, Any]], now: int) -> list[Value]:
    """Return one value for each figure and each worker's process. Pure."""
    shape = figures.shape()
    invocations = {name: count for name, count in shape["invocations"].items() if name != "by_function"}
    values = [Value(f"iii.invocations.{name}", now, count) for name, count in invocations.items()]
    values += [Value(f"iii.workers.{name}", now, count) for name, count in shape["workers"].items()]
    for row in rows:
        metrics = row.get("metrics") or {}
        values += [Value(name, now, metrics[field]) for field, name in _PROCESS.items() if field in metrics]
    return values
