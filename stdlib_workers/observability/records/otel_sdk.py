"""Rows as the objects that OpenTelemetry's own exporters take. Needs the extra `observability`, so imported late."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from stdlib_workers.observability.records.metrics import MetricRow, is_empty, metric_json
from stdlib_workers.observability.records.spans import SpanRow, attributes_of

_STATUSES = {"ok": StatusCode.OK, "error": StatusCode.ERROR, "unset": StatusCode.UNSET}
_KINDS = {kind.name.lower(): kind for kind in SpanKind}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def otel_span(row: SpanRow, resource: Resource) -> ReadableSpan | None:
    """Return a finished span; None when OpenTelemetry cannot write its ids."""
    context = _context(row.trace, row.span)
    if context is None:
        return None
    attributes: dict[str, Any] = attributes_of(row)
    detail = {} if row.detail is None else msgspec.json.decode(row.detail)
    status = _STATUSES[row.status]
    return ReadableSpan(
        name=row.name,
        context=context,
        parent=_context(row.trace, row.parent) if row.parent else None,
        resource=resource,
        attributes=attributes,
        events=[
            Event(event.get("name") or "", dict(event["attributes"]), event.get("timestamp_unix_nano") or 0)
            for event in detail.get("events", ())
        ],
        links=[
            Link(linked, dict(link["attributes"]))
            for link in detail.get("links", ())
            if (linked := _context(link.get("trace_id") or "", link.get("span_id") or "")) is not None
        ],
        kind=_KINDS.get(attributes.get("span.kind", ""), SpanKind.INTERNAL),
        status=Status(status, detail.get("status_description") if status is StatusCode.ERROR else None),
        start_time=row.start,
        end_time=row.finish,
        instrumentation_scope=InstrumentationScope(
            detail.get("instrumentation_scope_name") or "iii", detail.get("instrumentation_scope_version")
        ),
    )


def _context(trace: str, span: str) -> SpanContext | None:
    try:
        context = SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=_SAMPLED)
    except ValueError:
        return None
    return context if context.is_valid else None


def resource_of(service: str, project: Mapping[str, Any]) -> Resource:
    """Return the resource of a service; `project`: attributes that all services of the project share."""
    return Resource({**project, "service.name": service})


def otel_metrics(rows: Iterable[MetricRow], project: Mapping[str, Any]) -> MetricsData:
    """Return metrics by resource and scope; `project` as in `resource_of`."""
    by_origin: dict[bytes, tuple[Resource, InstrumentationScope, list[Metric]]] = {}
    for row in rows:
        metric = metric_json(row)
        resource = metric.get("resource") or {}
        scope = metric["instrumentation_scope_name"], metric["instrumentation_scope_version"]
        key = msgspec.json.encode((row.service, resource, scope))
        if key not in by_origin:
            attributes = {**project, **_labels({"attributes": resource})}
            by_origin[key] = resource_of(row.service, attributes), InstrumentationScope(scope[0] or "iii", scope[1]), []
        by_origin[key][2].append(_metric(metric))
    return MetricsData(
        [
            ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")
            for resource, scope, metrics in by_origin.values()
        ]
    )


def _metric(metric: dict[str, Any]) -> Metric:
    points, kind = [point for point in metric["data_points"] if not is_empty(point)], metric["metric_type"]
    is_delta = metric.get("aggregation_temporality") == "delta"
    temporality = AggregationTemporality.DELTA if is_delta else AggregationTemporality.CUMULATIVE
    data: Sum | Gauge | Histogram
    if kind == "histogram":
        histogram_points = [
            HistogramDataPoint(
                _labels(point),
                point.get("start_time_unix_nano", 0),
                point["timestamp_unix_nano"],
                point["count"],
                point["sum"] or 0.0,
                point["bucket_counts"],
                point["explicit_bounds"],
                point["min"] or 0.0,
                point["max"] or 0.0,
            )
            for point in points
        ]
        data = Histogram(histogram_points, temporality)
    else:
        numbers = [
            NumberDataPoint(
                _labels(point), point.get("start_time_unix_nano", 0), point["timestamp_unix_nano"], point["value"]
            )
            for point in points
        ]
        data = Gauge(numbers)
        if kind != "gauge":
            data = Sum(numbers, temporality, is_monotonic=kind == "counter")
    return Metric(metric["name"], metric.get("description") or "", metric.get("unit") or "", data)


def _labels(point: dict[str, Any]) -> dict[str, Any]:
    # OpenTelemetry's attributes are plain values: nested ones become JSON text.
    return {
        name: value if isinstance(value, (str, bool, int, float)) else msgspec.json.encode(value).decode()
        for name, value in (point.get("attributes") or {}).items()
    }
