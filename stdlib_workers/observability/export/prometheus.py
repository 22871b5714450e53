"""`/metrics` in Prometheus's text format.

Calls and errors are the engine's counts, durations come from recorded spans, and process metrics from the engine's
samples. The latest values of SDK metrics follow under their own names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry

from stdlib_workers.observability.ingest.http_server import Response, Route
from stdlib_workers.observability.records.call_stats import BOUNDS, CallStats
from stdlib_workers.observability.records.metrics import Series, total_of
from stdlib_workers.values import encode

_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_KINDS = {"counter": "counter", "gauge": "gauge", "updowncounter": "gauge", "histogram": "histogram"}
# Labels that are not an attribute's.
_OWN_LABELS = ("service", "instance", "otel_scope_name")
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
        own.append(
            _metric(
                "iii_dropped",
                "Records that were lost for want of room, or refused (malformed), by kind.",
                "counter",
                dropped,
            )
        )
        events = [({"cause": cause}, count) for cause, count in self.counters.items()]
        own.append(_metric("iii_engine_events", "What the engine dropped or refused, by cause.", "counter", events))
        yield from own
        taken = {"target_info"}.union(*(_sample_names(metric.name, metric.type) for metric in own))
        yield from _sdk_metrics(self.series, taken)


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
    metric: Metric, labels: dict[str, str], counts: Iterable[int], bounds: Iterable[float], total: float | None
) -> None:
    below = 0
    for count, bound in zip(counts, [*map(float, bounds), float("inf")], strict=False):
        below += count
        edge = "+Inf" if bound == float("inf") else repr(bound)
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": edge}, below)
    metric.add_sample(f"{metric.name}_count", labels, below)
    if total is not None:
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
    """Yield the metrics of SDKs. Series that Prometheus's names make one are added up; of gauges, the latest counts."""
    families: dict[tuple[str, str], _Family] = {}
    for item in series:
        kind = _KINDS.get(item.kind, "gauge")
        name = name_from(item.name)
        name = name.removesuffix("_total") if kind == "counter" else name
        family = families.setdefault((name, kind), _Family(item.description or item.name, {}, {}))
        source = {"service": item.service}
        if instance := _instance_of(item.resource):
            source["instance"] = instance
        if item.resource:
            family.resources[tuple(source.items())] = item.resource
        scope = {"otel_scope_name": item.scope} if item.scope else {}
        labels = tuple(sorted({**_labels_from(item.labels, kind), **source, **scope}.items()))
        before = family.points.get(labels)
        family.points[labels] = item.point if before is None or item.kind == "gauge" else total_of(before, item.point)
    for (name, kind), family in families.items():
        # Another metric may have the name: `orders` as a counter and as a gauge.
        candidates = (f"{name}{suffix}" for suffix in ("", f"_{kind}", *(f"_{kind}_{n}" for n in range(2, 100))))
        free = next((candidate for candidate in candidates if taken.isdisjoint(_sample_names(candidate, kind))), None)
        if free is None:
            continue
        taken |= _sample_names(free, kind)
        metric = Metric(free, family.description, kind)
        for labels, point in family.points.items():
            if kind == "histogram":
                counts = point["bucket_counts"] or [point["count"]]
                _add_histogram(metric, dict(labels), counts, point["explicit_bounds"], point["sum"])
            else:
                _add_sample(metric, dict(labels), float(point["value"]))
        yield metric
    resources = {source: resource for family in families.values() for source, resource in family.resources.items()}
    if resources:
        rows = [({**_labels_from(resource, "gauge"), **dict(source)}, 1.0) for source, resource in resources.items()]
        yield _metric("target_info", "What reports metrics: the attributes of its resource.", "gauge", rows)


class _Family(NamedTuple):
    """The series of one name and kind by their labels, and the resources they come from by `service` and `instance`."""

    description: str
    points: dict[tuple[tuple[str, str], ...], Mapping[str, Any]]
    resources: dict[tuple[tuple[str, str], ...], Mapping[str, Any]]


def _sample_names(name: str, kind: str) -> set[str]:
    suffixes = {"counter": ("", "_total"), "histogram": ("", "_bucket", "_count", "_sum")}
    return {f"{name}{suffix}" for suffix in suffixes.get(kind, ("",))}


def _instance_of(resource: Mapping[str, Any]) -> str:
    """Return what tells the processes of a service apart, "" when nothing does."""
    names = ("service.instance.id",) if "service.instance.id" in resource else ("host.name", "process.pid")
    return ":".join(str(resource[name]) for name in names if name in resource)


def _labels_from(attributes: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return attributes as labels. Values of names that become one are joined, as OpenTelemetry asks for."""
    labels: dict[str, str] = {}
    for attribute, value in sorted(attributes.items()):
        name = name_from(attribute).replace(":", "_")
        name = f"exported_{name}" if name in _OWN_LABELS or (name == "le" and kind == "histogram") else name
        text = value if isinstance(value, str) else encode(value).decode()
        labels[name] = f"{labels[name]};{text}" if name in labels else text
    return labels


def name_from(text: str) -> str:
    """Return `text` as a name that Prometheus takes."""
    name = _NAME.sub("_", text) or "_"
    return f"_{name}" if name[0].isdigit() else name
