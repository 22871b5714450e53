"""`/metrics` in Prometheus's text format. Needs the extra `observability`, so imported late.

Calls and errors are the engine's counts, durations come from recorded spans, and process metrics from the engine's
samples. The latest values of SDK metrics follow under their own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from stdlib_workers.observability.ingest.http_server import Response, Route
from stdlib_workers.observability.records.call_stats import BOUNDS, CallStats
from stdlib_workers.observability.records.metrics import Series

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


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The data of one scrape, and the collector that `prometheus_client` reads it from.

    `workers` and `counters` come from the engine, empty when it did not answer; `dropped` is by kind of record.
    """

    call_stats: CallStats
    workers: list[dict[str, Any]]
    counters: Mapping[str, int]
    dropped: Mapping[str, int]
    series: Iterable[Series]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the project, then those of SDKs under names that are not taken."""
        own = [*_calls(self.call_stats), *_workers(self)]
        dropped = [({"kind": kind}, count) for kind, count in self.dropped.items()]
        own.append(_metric("iii_dropped", "Records that were lost for want of room, by kind.", "counter", dropped))
        events = [({"cause": cause}, count) for cause, count in self.counters.items()]
        own.append(_metric("iii_engine_events", "What the engine dropped or refused, by cause.", "counter", events))
        yield from own
        yield from _sdk_metrics(self.series, {metric.name for metric in own})


def route(snapshot: Callable[[], Snapshot]) -> Route:
    return lambda _: Response(200, CONTENT_TYPE_LATEST, text_of(snapshot()))


def text_of(snapshot: Snapshot) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(snapshot)
    return generate_latest(registry)


def _metric(name: str, text: str, kind: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    """Return a counter or gauge with its samples: labels and values."""
    metric = Metric(name, text, kind)
    for labels, value in samples:
        _add_sample(metric, labels, value)
    return metric


def _add_sample(metric: Metric, labels: dict[str, str], value: float) -> None:
    metric.add_sample(f"{metric.name}_total" if metric.type == "counter" else metric.name, labels, value)


def _calls(call_stats: CallStats) -> Iterator[Metric]:
    calls = call_stats.calls()
    outcomes = [({"outcome": outcome}, calls[outcome]) for outcome in ("success", "error", "deferred")]
    yield _metric("iii_invocations", "Calls, by outcome; deferred: void and enqueue.", "counter", outcomes)
    functions = [({"function": function_id}, count) for function_id, count in dict(call_stats.by_function).items()]
    yield _metric("iii_function_invocations", "Calls of a function.", "counter", functions)
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
    stats = snapshot.call_stats
    yield _metric("iii_workers", "Workers that are connected.", "gauge", [({}, stats.active)])
    yield _metric("iii_worker_spawns", "Workers that connected.", "counter", [({}, stats.spawns)])
    yield _metric("iii_worker_deaths", "Workers that went.", "counter", [({}, stats.deaths)])
    rows = [
        ({"worker": str(row.get("name")), "instance": str(row.get("instance") or 0)}, row) for row in snapshot.workers
    ]
    restarts = [(labels, row.get("restarts") or 0) for labels, row in rows]
    yield _metric("iii_worker_restarts", "How often a worker's process was started again.", "counter", restarts)
    processes = [(labels, row.get("metrics") or {}) for labels, row in rows]
    for field, (name, kind, unit) in _PROCESS.items():
        samples = [(labels, metrics[field] * unit) for labels, metrics in processes if field in metrics]
        yield _metric(name, f"{field} of the worker's process.", kind, samples)


def _sdk_metrics(series: Iterable[Series], taken: set[str]) -> Iterator[Metric]:
    metrics: dict[str, Metric] = {}
    for item in series:
        name = name_from(item.name)
        kind = _KINDS.get(item.kind, "gauge")
        name = name.removesuffix("_total") if kind == "counter" else name
        metric = metrics.setdefault(name, Metric(name, item.description or item.name, kind))
        # Two kinds under one name would make the page unreadable for Prometheus.
        if name in taken or metric.type != kind:
            continue
        attributes = {name_from(label).replace(":", "_"): str(value) for label, value in item.labels.items()}
        labels, point = {"service": item.service, **attributes}, item.point
        if kind == "histogram":
            counts = point.get("bucket_counts") or [point.get("count", 0)]
            _add_histogram(metric, labels, counts, point.get("explicit_bounds") or [], point.get("sum") or 0.0)
        else:
            _add_sample(metric, labels, float(point.get("value") or 0.0))
    yield from (metric for metric in metrics.values() if metric.samples)


def name_from(text: str) -> str:
    """Return `text` as a name that Prometheus takes."""
    name = _NAME.sub("_", text) or "_"
    return f"_{name}" if name[0].isdigit() else name
