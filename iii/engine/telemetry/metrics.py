"""Two kinds of numbers for telemetry: process metrics that workers report themselves, and counts of calls. Pure.

The engine measures the processes that it started. For workers on their own connections it reads the metrics that their
SDKs send: gauges `iii.worker.*` with the attribute `worker.id`. Counts of calls are differences to the router's
counters, which count all the time, whether calls are recorded or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import msgspec

from iii.engine.routing.router import Router
from iii.protocol.codec import decode_value

_PREFIX = "iii.worker."
_FIELDS = {
    *("memory_heap_used", "memory_heap_total", "memory_rss", "memory_external"),
    *("cpu_percent", "cpu_user_micros", "cpu_system_micros", "event_loop_lag_ms", "uptime_seconds"),
}
# Age at which a worker's report no longer counts (public contract).
REPORT_TIMEOUT = 120.0
# Bytes of the largest frame that is decoded: reports have about 4 KB, and the engine's loop does the work.
MAX_FRAME = 64 * 1024
# Workers with a report, the latest; a client that may send telemetry can make up ids.
MAX_WORKERS = 1024


class WorkerMetrics:
    """The latest report of each worker, by its id. Times in seconds since 1970."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, dict[str, float]]] = {}

    def take(self, prefix: str, data: bytes, now: float) -> None:
        """Take the process metrics from a telemetry frame; any other frame is ignored."""
        if prefix != "MTRC" or len(data) > MAX_FRAME or _PREFIX.encode() not in data:
            return
        try:
            points = list(_points(decode_value(data)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        for worker, field, value in points:
            reported_at, values = self._reports.pop(worker, (now, {}))
            recent = values if now - reported_at <= REPORT_TIMEOUT else {}
            self._reports[worker] = (now, {**recent, field: value})
        while len(self._reports) > MAX_WORKERS:
            del self._reports[next(iter(self._reports))]

    def latest(self, worker: str, now: float) -> dict[str, Any] | None:
        """Return a worker's report with its time as `timestamp_ms`; None if the worker has sent none of late."""
        reported_at, values = self._reports.get(worker, (0.0, {}))
        if not values or now - reported_at > REPORT_TIMEOUT:
            return None
        return {**values, "timestamp_ms": int(reported_at * 1000)}


def _points(request: Any) -> Iterator[tuple[str, str, float]]:
    """Yield worker id, field and value of every process metric in an ExportMetricsServiceRequest."""
    for resource in _objects(request, "resourceMetrics"):
        for scope in _objects(resource, "scopeMetrics"):
            for metric in _objects(scope, "metrics"):
                field = str(metric.get("name")).removeprefix(_PREFIX).replace(".", "_")
                for point in _objects(metric.get("gauge"), "dataPoints") if field in _FIELDS else ():
                    attributes = {str(pair.get("key")): pair.get("value") for pair in _objects(point, "attributes")}
                    id = attributes.get("worker.id")
                    worker = id.get("stringValue") if isinstance(id, Mapping) else None
                    value = _number(point)
                    if isinstance(worker, str) and value is not None:
                        yield worker, field, value


def _objects(owner: Any, name: str) -> list[Mapping[str, Any]]:
    items = owner.get(name) if isinstance(owner, Mapping) else None
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _number(point: Mapping[str, Any]) -> float | None:
    """Return the value of a point, which some SDKs write as a string; None if it is no finite number."""
    try:
        value = int(point["asInt"]) if "asInt" in point else float(point["asDouble"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return value if isfinite(value) else None


class CallCounts:
    """How many calls there were since this object was created."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._initial = {function: (function.answered, function.failed) for function in router.registry}
        self._initial_totals = self._totals()

    def _totals(self) -> tuple[int, int, int, int]:
        """Return calls and failures of functions that are not registered any more or never were, void, enqueued."""
        registry, router = self._router.registry, self._router
        unknown = router.calls.counters["unknown_function"]
        return registry.past_answered + unknown, registry.past_failed + unknown, router.void_calls, router.enqueue_calls

    @property
    def total(self) -> int:
        """How many calls there were in all."""
        return int(self.report()["total"])

    def report(self) -> dict[str, Any]:
        """Return the counts in the form of docs/observability.md, without the functions of observers."""
        changes = [now - initial for now, initial in zip(self._totals(), self._initial_totals, strict=True)]
        answered, failed, void, enqueued = changes
        functions: dict[str, int] = {}
        for function in self._router.registry:
            initial_answered, initial_failed = self._initial.get(function, (0, 0))
            calls = function.answered - initial_answered
            if calls and not function.owner.is_observer:
                answered, failed = answered + calls, failed + function.failed - initial_failed
                functions[function.id] = functions.get(function.id, 0) + calls
        counts = {"total": answered + void, "success": answered - failed, "error": failed, "deferred": void + enqueued}
        return {**counts, "by_function": functions}
