"""An SDK's metric as a row of the storage and as JSON, and the numbers in it. Pure.

`otlp_json` makes the JSON of the contract from OTLP; here it becomes rows, and values for rollups, alerts and
Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from iii.redaction import BatchRedactor
from stdlib_workers.observability.records.aggregation import Histogram, Value
from stdlib_workers.observability.records.spans import clamp

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class MetricRow(NamedTuple):
    """One metric of one export, in the order of the table's columns. `record`: the metric as JSON text."""

    name: str
    service: str
    kind: str
    time: int
    record: str


def metric_row_from(metric: Mapping[str, Any], redactor: BatchRedactor, now: int) -> MetricRow:
    """Return the row of a metric, given as the contract's JSON; `now`, when it came in, is its time."""
    points = [{**point, "attributes": redactor.value(point.get("attributes") or {})} for point in metric["data_points"]]
    record = _encode({**metric, "timestamp_unix_nano": now, "data_points": points}).decode()
    service = str(metric.get("service_name") or "unknown")
    return MetricRow(str(metric["name"]), service, str(metric["metric_type"]), now, record)


def metric_json(row: MetricRow) -> dict[str, Any]:
    """Return the metric as the contract shows it."""
    metric: dict[str, Any] = _decode(row.record)
    return metric


def values_of(row: MetricRow) -> Iterator[Value]:
    """Yield the plain numbers of a metric."""
    for point in metric_json(row)["data_points"]:
        if "value" in point:
            yield Value(row.name, clamp(point.get("timestamp_unix_nano")) or row.time, float(point["value"]))


def histograms_of(row: MetricRow) -> Iterator[Histogram]:
    """Yield the histograms of a metric."""
    for point in metric_json(row)["data_points"]:
        if "count" in point:
            yield Histogram(
                row.name,
                clamp(point.get("timestamp_unix_nano")) or row.time,
                point["count"],
                point["sum"],
                point["min"],
                point["max"],
                tuple(point["bucket_counts"]),
                tuple(point["explicit_bounds"]),
            )
