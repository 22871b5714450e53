"""What workers on their own connections say of their processes, read from the metrics of official SDKs. Pure.

The engine measures the processes that it started itself; of all others it knows what their SDK reports: gauges
`iii.worker.*` with the attribute `worker.id`. The feed hands every metrics frame in, `engine::workers::info` asks.

MERGED: How many calls there were since somebody began to look, recorded or not. Pure; `feed.py` tells it in each batch.

The router counts all the time, on the functions themselves; this knows what stood there at the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import msgspec

from iii.engine.routing.peer import Owner
from iii.engine.routing.registry import Function
from iii.engine.routing.router import Router
from iii.protocol.codec import decode_value

_PREFIX = "iii.worker."
_FIELDS = frozenset(
    {
        *("memory_heap_used", "memory_heap_total", "memory_rss", "memory_external"),
        *("cpu_percent", "cpu_user_micros", "cpu_system_micros", "event_loop_lag_ms", "uptime_seconds"),
    }
)
# Seconds after which a report is no longer how the worker is (public contract).
FRESH_SECONDS = 120.0
# Bytes of a frame that is looked into: reports have about 4 KB, and this is read on the engine's loop.
MAX_FRAME = 64 * 1024
# Workers that are remembered, the newest; anybody who may send telemetry can make up ids.
MAX_WORKERS = 1024


class WorkerMetrics:
    """The latest report of each worker, by its id. Times in seconds since 1970."""

    def __init__(self) -> None:
        self._reports: dict[str, tuple[float, dict[str, float]]] = {}

    def take(self, kind: str, data: bytes, now: float) -> None:
        """Take a telemetry frame; whatever is no report of a worker's process is passed over."""
        if kind != "MTRC" or len(data) > MAX_FRAME or _PREFIX.encode() not in data:
            return
        try:
            found = list(_points(decode_value(data)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        for worker, field, value in found:
            seen, values = self._reports.pop(worker, (now, {}))
            fresh = values if now - seen <= FRESH_SECONDS else {}
            self._reports[worker] = (now, {**fresh, field: value})
        while len(self._reports) > MAX_WORKERS:
            del self._reports[next(iter(self._reports))]

    def latest(self, worker: str, now: float) -> dict[str, Any] | None:
        """Return what a worker said in the last two minutes, with `timestamp_ms` of the last word; None for nothing."""
        seen, values = self._reports.get(worker, (0.0, {}))
        if not values or now - seen > FRESH_SECONDS:
            return None
        return {**values, "timestamp_ms": int(seen * 1000)}


def _points(request: Any) -> Iterator[tuple[str, str, float]]:
    """Yield worker id, field and value of every such gauge in an ExportMetricsServiceRequest."""
    for resource in _objects(request, "resourceMetrics"):
        for scope in _objects(resource, "scopeMetrics"):
            for metric in _objects(scope, "metrics"):
                field = str(metric.get("name")).removeprefix(_PREFIX).replace(".", "_")
                if field in _FIELDS:
                    yield from _values(field, metric.get("gauge"))


def _values(field: str, gauge: Any) -> Iterator[tuple[str, str, float]]:
    for point in _objects(gauge, "dataPoints"):
        attributes = {str(pair.get("key")): pair.get("value") for pair in _objects(point, "attributes")}
        id = attributes.get("worker.id")
        worker = id.get("stringValue") if isinstance(id, Mapping) else None
        value = _number(point)
        if isinstance(worker, str) and value is not None:
            yield worker, field, value


def _objects(owner: Any, name: str) -> list[Mapping[str, Any]]:
    found = owner.get(name) if isinstance(owner, Mapping) else None
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _number(point: Mapping[str, Any]) -> float | None:
    """Return the value, which some SDKs write as a string; None for what is no finite number."""
    try:
        value = int(point["asInt"]) if "asInt" in point else float(point["asDouble"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return value if isfinite(value) else None


class CallCounts:
    """The difference between the router's counts now and when this was made."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._functions = {function: (function.answered, function.failed) for function in router.registry}
        self._others = self._count_others()

    def _count_others(self) -> tuple[int, int, int, int]:
        """Return calls and failures of functions that are not there any more or never were, void and enqueued calls."""
        registry, router = self._router.registry, self._router
        unknown = router.calls.counters["unknown_function"]
        return registry.past_answered + unknown, registry.past_failed + unknown, router.void_calls, router.enqueue_calls

    def _since(self, function: Function) -> tuple[int, int]:
        answered, failed = self._functions.get(function, (0, 0))
        return function.answered - answered, function.failed - failed

    def report(self, taker: Owner | None) -> dict[str, Any]:
        """Return the counts in the form of docs/observability.md, without the calls of whoever takes them."""
        changes = [now - then for now, then in zip(self._count_others(), self._others, strict=True)]
        answered, failed, void, enqueued = changes
        functions: dict[str, int] = {}
        for function in self._router.registry:
            calls, errors = self._since(function)
            if calls and function.owner is not taker:
                answered, failed = answered + calls, failed + errors
                functions[function.id] = functions.get(function.id, 0) + calls
        counts = {"total": answered + void, "success": answered - failed, "error": failed, "deferred": void + enqueued}
        return {**counts, "by_function": functions}
