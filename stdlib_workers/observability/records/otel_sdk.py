"""Rows as the objects that OpenTelemetry's own exporters take. Needs the extra `observability`; imported late."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

from stdlib_workers.observability.records.metrics import MetricRow, metric_shape_from
from stdlib_workers.observability.records.spans import SpanRow, attributes_of

_STATUSES = {"ok": StatusCode.OK, "error": StatusCode.ERROR, "unset": StatusCode.UNSET}
_KINDS = {kind.name.lower(): kind for kind in SpanKind}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def exportable_span(row: SpanRow, resource: Resource) -> ReadableSpan | None:
    """Return a finished span, None for ids that OpenTelemetry could not write."""
    context = _context(row.trace, row.span)
    if context is None:
        return None
    attributes: dict[str, Any] = attributes_of(row)
    detail = {} if row.detail is None else msgspec.json.decode(row.detail)
    return ReadableSpan(
        name=row.name,
        context=context,
        parent=_context(row.trace, row.parent) if row.parent else None,
        resource=resource,
        attributes=attributes,
        events=[_event(event) for event in detail.get("events", ())],
        links=[link for link in map(_link, detail.get("links", ())) if link is not None],
        kind=_KINDS.get(attributes.get("span.kind", ""), SpanKind.INTERNAL),
        status=_status(row.status, detail.get("status_description")),
        start_time=row.start,
        end_time=row.finish,
        instrumentation_scope=_scope(detail),
    )


def _context(trace: str, span: str) -> SpanContext | None:
    try:
        found = SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=_SAMPLED)
    except ValueError:
        return None
    return found if found.is_valid else None


def _status(status: str, description: str | None) -> Status:
    code = _STATUSES[status]
    return Status(code, description if code is StatusCode.ERROR else None)


def _event(event: dict[str, Any]) -> Event:
    return Event(event.get("name") or "", dict(event["attributes"]), event.get("timestamp_unix_nano") or 0)


def _link(link: dict[str, Any]) -> Link | None:
    context = _context(link.get("trace_id") or "", link.get("span_id") or "")
    return None if context is None else Link(context, dict(link["attributes"]))


def _scope(detail: dict[str, Any]) -> InstrumentationScope:
    name, version = detail.get("instrumentation_scope_name"), detail.get("instrumentation_scope_version")
    return InstrumentationScope(name or "iii", version)


def resource_of(service: str, own: dict[str, str]) -> Resource:
    """Return the resource of a service; `own`: namespace and version of the project."""
    return Resource({**own, "service.name": service})


def exportable_metrics(rows: Iterable[MetricRow], own: dict[str, str]) -> MetricsData:
    """Return metrics, grouped by their service."""
    by_service: dict[str, list[Metric]] = {}
    for row in rows:
        by_service.setdefault(row.service, []).append(_metric(metric_shape_from(row)))
    return MetricsData(
        [
            ResourceMetrics(resource_of(service, own), [ScopeMetrics(InstrumentationScope("iii"), metrics, "")], "")
            for service, metrics in by_service.items()
        ]
    )


def _metric(shape: dict[str, Any]) -> Metric:
    points, kind = shape["data_points"], shape["metric_type"]
    data: Sum | Gauge | Histogram
    if kind == "histogram":
        data = Histogram([_histogram(point) for point in points], AggregationTemporality.CUMULATIVE)
    elif kind == "gauge":
        data = Gauge(_numbers(points))
    else:
        data = Sum(_numbers(points), AggregationTemporality.CUMULATIVE, is_monotonic=kind == "counter")
    return Metric(shape["name"], shape.get("description") or "", shape.get("unit") or "", data)


def _numbers(points: Sequence[dict[str, Any]]) -> list[NumberDataPoint]:
    return [NumberDataPoint(_labels(point), 0, point["timestamp_unix_nano"], point["value"]) for point in points]


def _histogram(point: dict[str, Any]) -> HistogramDataPoint:
    return HistogramDataPoint(
        _labels(point),
        0,
        point["timestamp_unix_nano"],
        point["count"],
        point["sum"],
        point["bucket_counts"],
        point["explicit_bounds"],
        0.0 if point["min"] is None else point["min"],
        0.0 if point["max"] is None else point["max"],
    )


def _labels(point: dict[str, Any]) -> dict[str, Any]:
    # OpenTelemetry's attributes are plain values; what is nested goes as text.
    plain = (str, bool, int, float)
    labels = point.get("attributes") or {}
    return {
        name: value if isinstance(value, plain) else msgspec.json.encode(value).decode()
        for name, value in labels.items()
    }
