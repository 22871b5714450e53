"""OTLP's JSON requests as spans, logs and metrics in the JSON of the public contract. Pure.

Numbers may be numbers or strings, names may be null, and ids of zeros are no ids. Any other field that does not fit is
left out and never an error: telemetry must not break its sender. What the contract has no place for (data points of
exponential histograms and summaries, values that are no finite numbers) is counted as refused, by reason. Exemplars are
not kept. `otlp_protobuf` makes the same JSON from the binary form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from stdlib_workers.observability.records.logs import severity_name
from stdlib_workers.observability.records.spans import MAX_INTEGER, clamp

_STATUSES = {0: "unset", 1: "ok", 2: "error"}
_STATUS_NAMES = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
# OTLP counts the kinds of spans from 1, iii's Python SDK from 0: 0 is "unset" in one and "internal" in the other.
KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
# Of an attribute's value; what nests deeper is null.
_MAX_DEPTH = 16

Json = Mapping[str, Any]


def spans_from(request: Any) -> list[dict[str, Any]]:
    """Return the spans of an ExportTraceServiceRequest. End time 0: a snapshot of a span that is still running."""
    return [_span(span, origin) for span, _, origin in _records(request, "resourceSpans", "scopeSpans", "spans")]


def logs_from(request: Any) -> list[dict[str, Any]]:
    logs = []
    for record, resource, origin in _records(request, "resourceLogs", "scopeLogs", "logRecords"):
        number = integer_from(record.get("severityNumber"))
        log = {
            "timestamp_unix_nano": clamp(record.get("timeUnixNano")),
            "observed_timestamp_unix_nano": clamp(record.get("observedTimeUnixNano")),
            "severity_number": number,
            "severity_text": record.get("severityText") or severity_name(number or 9),
            "body": value_from(record.get("body")) if record.get("body") is not None else "",
            "attributes": attributes_from(record.get("attributes")),
            "trace_id": id_from(record.get("traceId")),
            "span_id": id_from(record.get("spanId")),
            "resource": resource,
            **origin,
        }
        logs.append(log)
    return logs


def metrics_from(request: Any, refused: Counter[str]) -> list[dict[str, Any]]:
    """Return the metrics of an ExportMetricsServiceRequest, without the data points that `refused` then counts.

    A point without a value says that its series has ended. Sums and histograms whose points are changes since the last
    report have `aggregation_temporality` "delta".
    """
    metrics = []
    for metric, resource, origin in _records(request, "resourceMetrics", "scopeMetrics", "metrics"):
        field = next((field for field in _POINTS if isinstance(metric.get(field), dict)), None)
        if field is None or not metric.get("name"):
            kind = next((name for name in _UNKNOWN_KINDS if isinstance(metric.get(name), dict)), None)
            points = _objects(metric[kind].get("dataPoints")) if kind else [{}]
            refused["no name" if not metric.get("name") else f"{kind or 'no'} data"] += len(points)
            continue
        points = []
        for point in _objects(metric[field].get("dataPoints")):
            values = {} if integer_from(point.get("flags")) & _NO_RECORDED_VALUE else _POINTS[field](point)
            if values is None:
                refused["a value that is no finite number, or buckets that do not fit their bounds"] += 1
                continue
            start = clamp(point.get("startTimeUnixNano"))
            points.append(
                {
                    **values,
                    "attributes": attributes_from(point.get("attributes")),
                    "timestamp_unix_nano": clamp(point.get("timeUnixNano")),
                    **({"start_time_unix_nano": start} if start else {}),
                }
            )
        kind = field
        if field == "sum":
            kind = "counter" if metric["sum"].get("isMonotonic") else "updowncounter"
        texts = {name: str(metric.get(name) or "") for name in ("name", "description", "unit")}
        found = {**texts, "metric_type": kind, "data_points": points, **origin}
        if metric[field].get("aggregationTemporality") in _DELTA:
            found["aggregation_temporality"] = "delta"
        if others := {name: value for name, value in resource.items() if name != "service.name"}:
            found["resource"] = others
        metrics.append(found)
    return metrics


def _records(request: Any, outer: str, inner: str, items: str) -> Iterator[tuple[Json, Json, Json]]:
    """Yield each record, the attributes of its resource, and the fields that say where it comes from."""
    for by_resource in _objects(_object(request).get(outer)):
        resource = attributes_from(_object(by_resource.get("resource")).get("attributes"))
        for by_scope in _objects(by_resource.get(inner)):
            scope = _object(by_scope.get("scope"))
            origin = {
                "service_name": resource.get("service.name") or "unknown",
                "instrumentation_scope_name": scope.get("name") or None,
                "instrumentation_scope_version": scope.get("version") or None,
            }
            for record in _objects(by_scope.get(items)):
                yield record, resource, origin


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _span(span: Json, origin: Json) -> dict[str, Any]:
    status = _object(span.get("status"))
    code = status.get("code")
    if isinstance(code, str):
        code = _STATUS_NAMES.get(code, code)
    attributes = attributes_from(span.get("attributes"))
    kind = _kind(span.get("kind"))
    if kind and kind != "internal":
        attributes.setdefault("span.kind", kind)
    end = clamp(span.get("endTimeUnixNano"))
    json = {
        "trace_id": id_from(span.get("traceId")),
        "span_id": id_from(span.get("spanId")),
        "parent_span_id": id_from(span.get("parentSpanId")),
        "name": span.get("name") or "",
        "start_time_unix_nano": clamp(span.get("startTimeUnixNano")),
        "end_time_unix_nano": end,
        "status": _STATUSES.get(integer_from(code), "unset"),
        "status_description": status.get("message") or None,
        "attributes": attributes,
        "events": [
            {
                "name": event.get("name") or "",
                "timestamp_unix_nano": clamp(event.get("timeUnixNano")),
                "attributes": _pairs(event),
            }
            for event in _objects(span.get("events"))
        ],
        "links": [
            {
                "trace_id": id_from(link.get("traceId")) or "",
                "span_id": id_from(link.get("spanId")) or "",
                "trace_state": link.get("traceState") or None,
                "attributes": _pairs(link),
            }
            for link in _objects(span.get("links"))
        ],
        "flags": integer_from(span.get("flags")) or None,
        "trace_state": span.get("traceState") or None,
        **origin,
    }
    return json if end else {**json, "pending": True}


def _kind(value: Any) -> str | None:
    if isinstance(value, str) and value.startswith("SPAN_KIND_"):
        name = value.removeprefix("SPAN_KIND_")
        return name.lower() if name.isupper() and name.lower() in KINDS.values() else None
    return KINDS.get(integer_from(value))


def _pairs(owner: Json) -> list[list[Any]]:
    return [[name, value] for name, value in attributes_from(owner.get("attributes")).items()]


def _number(point: Json) -> dict[str, Any] | None:
    value = point.get("asInt", point.get("asDouble"))
    number = float_from(value)
    if number is None or isinstance(value, bool):
        return None
    return {"value": integer_from(value) if "asInt" in point else number}


def _histogram(point: Json) -> dict[str, Any] | None:
    counts, bounds = point.get("bucketCounts") or [], point.get("explicitBounds") or []
    if not isinstance(counts, list) or not isinstance(bounds, list) or len(counts) != len(bounds) + bool(counts):
        return None
    edges = [float_from(bound) for bound in bounds]
    total = float_from(point.get("sum"))
    if None in edges or (total is None and point.get("sum") is not None):
        return None
    return {
        "count": integer_from(point.get("count")),
        "sum": total,
        "bucket_counts": [integer_from(count) for count in counts],
        "explicit_bounds": edges,
        "min": float_from(point.get("min")),
        "max": float_from(point.get("max")),
    }


# Field of a metric that the contract knows -> what it reads of each data point.
_POINTS = {"gauge": _number, "sum": _number, "histogram": _histogram}
_UNKNOWN_KINDS = ("exponentialHistogram", "summary", *_POINTS)
_DELTA = (1, "1", "AGGREGATION_TEMPORALITY_DELTA")
_NO_RECORDED_VALUE = 1


def attributes_from(attributes: Any) -> dict[str, Any]:
    """Return OTLP's list of keys and values as an object."""
    return {str(item.get("key")): value_from(item.get("value")) for item in _objects(attributes) if item.get("key")}


def value_from(value: Any, depth: int = 0) -> Any:
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        return None if isinstance(value, dict) else value
    if "arrayValue" in value:
        return [value_from(item, depth + 1) for item in _objects(_object(value["arrayValue"]).get("values"))]
    if "kvlistValue" in value:
        pairs = _objects(_object(value["kvlistValue"]).get("values"))
        return {str(pair.get("key")): value_from(pair.get("value"), depth + 1) for pair in pairs}
    if "intValue" in value:
        return integer_from(value["intValue"])
    if "doubleValue" in value:
        return float_from(value["doubleValue"])
    return next((value[name] for name in ("stringValue", "boolValue", "bytesValue") if name in value), None)


def id_from(value: Any) -> str | None:
    """Return an id in lower case; None without an id, and for zeros."""
    return value.lower() if isinstance(value, str) and value.strip("0") else None


def integer_from(value: Any) -> int:
    """Return an integer written as a number or a string, clamped to 64 bits; 0 for anything else."""
    try:
        return max(-MAX_INTEGER - 1, min(int(value or 0), MAX_INTEGER))
    except (TypeError, ValueError, OverflowError):
        return 0


def float_from(value: Any) -> float | None:
    """Return a finite number written as a number or a string, None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isfinite(number) else None
