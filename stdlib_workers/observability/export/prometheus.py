"""`/metrics` in Prometheus's text format. Needs the extra `observability`, so imported late.

Calls and errors are the engine's counts, durations come from recorded spans, and process metrics from the engine's
samples. The latest values of SDK metrics follow under their own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from stdlib_workers.observability.ingest.http_server import Response, Route
from stdlib_workers.observability.records.call_stats import BOUNDS, CallStats
from stdlib_workers.observability.records.latest_series import Series

_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_KINDS = {"counter": "counter", "gauge": "gauge", "updowncounter": "gauge", "histogram": "histogram"}
# Field of the engine's process metrics -> name, kind, and factor to the unit in the name.
_PROCESS = {
    "memory_rss": ("iii_worker_memory_rss_bytes", "gauge", 1),
    "cpu_percent": ("iii_worker_cpu_percent", "gauge", 1),
    "cpu_user_micros": ("iii_worker_cpu_user_seconds", "counter", 1e-6),
    "cpu_system_micros": ("iii_worker_cpu_system_seconds", "counter", 1e-6),
    "threads": ("iii_worker_threads", "gauge", 1),
    "uptime_seconds": ("iii_worker_uptime_seconds", "gauge", 1),
}


class Snapshot(NamedTuple):
    """The data of one scrape.

    `workers` and `counters` come from the engine, empty when it did not answer; `dropped` is by kind of record.
    """

    call_stats: CallStats
    workers: list[dict[str, Any]]
    counters: Mapping[str, int]
    dropped: Mapping[str, int]
    series: Iterable[Series]


class _Collector:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot
        own = [*_calls(snapshot.call_stats), *_workers(snapshot), *_events(snapshot)]
        yield from own
        yield from _sdk_metrics(snapshot.series, {metric.name for metric in own})


def route(snapshot: Callable[[], Snapshot]) -> Route:
    """Return the route `GET /metrics`."""
    return lambda _: Response(200, CONTENT_TYPE_LATEST, text_of(snapshot()))


def text_of(snapshot: Snapshot) -> bytes:
    """Return the text of one scrape."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot))
    return generate_latest(registry)


def _calls(call_stats: CallStats) -> Iterator[Metric]:
    calls = call_stats.calls()
    total = Metric("iii_invocations", "Calls, by outcome; deferred: void and enqueue.", "counter")
    for outcome in ("success", "error", "deferred"):
        total.add_sample("iii_invocations_total", {"outcome": outcome}, calls[outcome])
    yield total
    by_function = Metric("iii_function_invocations", "Calls of a function.", "counter")
    for function_id, count in call_stats.by_function().items():
        by_function.add_sample("iii_function_invocations_total", {"function": function_id}, count)
    yield by_function
    durations = Metric("iii_invocation_duration_seconds", "How long recorded calls took.", "histogram")
    for function_id, measured in tuple(call_stats.durations.items()):
        _add_histogram(durations, {"function": function_id}, measured.counts, BOUNDS, measured.sum)
    yield durations


def _add_histogram(
    metric: Metric, labels: dict[str, str], counts: Iterable[int], bounds: Iterable[float], total: float
) -> None:
    below = 0
    for count, bound in zip(counts, [*map(float, bounds), float("inf")], strict=False):
        below += count
        edge = "+Inf" if bound == float("inf") else repr(bound)
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": edge}, below)
    metric.add_sample(f"{metric.name}_count", labels, below)
    metric.add_sample(f"{metric.name}_sum", labels, total)


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    yield _single("iii_workers", "Workers that are connected.", "gauge", snapshot.call_stats.active)
    yield _single("iii_worker_spawns", "Workers that connected.", "counter", snapshot.call_stats.spawns)
    yield _single("iii_worker_deaths", "Workers that went.", "counter", snapshot.call_stats.deaths)
    restarts = Metric("iii_worker_restarts", "How often a worker's process was started again.", "counter")
    processes = {
        name: Metric(name, f"{field} of the worker's process.", kind) for field, (name, kind, _) in _PROCESS.items()
    }
    for row in snapshot.workers:
        labels = {"worker": str(row.get("name")), "instance": str(row.get("instance") or 0)}
        restarts.add_sample("iii_worker_restarts_total", labels, row.get("restarts") or 0)
        metrics = row.get("metrics") or {}
        for field, (name, kind, unit) in _PROCESS.items():
            if field in metrics:
                sample = f"{name}_total" if kind == "counter" else name
                processes[name].add_sample(sample, labels, metrics[field] * unit)
    yield restarts
    yield from processes.values()


def _single(name: str, text: str, kind: str, value: float) -> Metric:
    metric = Metric(name, text, kind)
    metric.add_sample(f"{name}_total" if kind == "counter" else name, {}, value)
    return metric


def _events(snapshot: Snapshot) -> Iterator[Metric]:
    dropped = Metric("iii_dropped", "Records that were lost for want of room, by kind.", "counter")
    for kind, count in snapshot.dropped.items():
        dropped.add_sample("iii_dropped_total", {"kind": kind}, count)
    yield dropped
    events = Metric("iii_engine_events", "What the engine dropped or refused, by cause.", "counter")
    for cause, count in snapshot.counters.items():
        events.add_sample("iii_engine_events_total", {"cause": cause}, count)
    yield events


def _sdk_metrics(series: Iterable[Series], taken: set[str]) -> Iterator[Metric]:
    metrics: dict[str, Metric] = {}
    for item in series:
        name = name_from(item.name)
        kind = _KINDS.get(item.kind, "gauge")
        name = name.removesuffix("_total") if kind == "counter" else name
        metric = metrics.setdefault(name, Metric(name, item.description or item.name, kind))
        # Two kinds under one name would make the page unreadable for Prometheus.
        if name not in taken and metric.type == kind:
            _add_series(metric, item)
    yield from (metric for metric in metrics.values() if metric.samples)


def _add_series(metric: Metric, series: Series) -> None:
    labels = {name_from(name).replace(":", "_"): str(value) for name, value in series.labels.items()}
    labels = {"service": series.service, **labels}
    if metric.type == "histogram":
        point = series.point
        counts = point.get("bucket_counts") or [point.get("count", 0)]
        _add_histogram(metric, labels, counts, point.get("explicit_bounds") or [], point.get("sum") or 0.0)
    else:
        sample = f"{metric.name}_total" if metric.type == "counter" else metric.name
        metric.add_sample(sample, labels, float(series.point.get("value") or 0.0))


def name_from(text: str) -> str:
    """Return `text` as a name that Prometheus takes."""
    name = _NAME.sub("_", text) or "_"
    return f"_{name}" if name[0].isdigit() else name
