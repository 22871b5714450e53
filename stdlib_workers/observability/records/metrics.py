"""An SDK's metric as a row of the storage and as JSON, and the numbers in it. Pure.

`otlp_json` makes the JSON of the contract from OTLP; here it becomes rows, values for rollups and alerts, and the
latest value of every series for Prometheus to scrape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from iii.redaction import BatchRedactor
from stdlib_workers.observability.records.aggregation import Histogram, Value
from stdlib_workers.observability.records.spans import SECOND, clamp

MAX_SERIES = 10_000
# A series that no SDK reports for so long has ended, as in Prometheus itself.
SERIES_TIMEOUT_NS = 300 * SECOND
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


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
    return _decode(row.record)


def values_of(row: MetricRow) -> Iterator[Value]:
    for point in metric_json(row)["data_points"]:
        if "value" in point:
            yield Value(row.name, clamp(point.get("timestamp_unix_nano")) or row.time, float(point["value"]))


def histograms_of(row: MetricRow) -> Iterator[Histogram]:
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


class Series(NamedTuple):
    """One series (a metric's name, its service and its attributes) and its latest data point."""

    name: str
    kind: str
    service: str
    description: str
    labels: Mapping[str, Any]
    point: Mapping[str, Any]
    time: int


class LatestSeries:
    """The series of all SDKs, in the order of their last report."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str], Series] = {}

    def add(self, rows: Iterable[MetricRow]) -> None:
        """Keep the points of these metrics; over MAX_SERIES, forget the series that were reported longest ago."""
        for row in rows:
            metric = metric_json(row)
            for point in metric["data_points"]:
                labels = point.get("attributes") or {}
                key = (row.name, row.service, _encode(labels).decode())
                # Removed first: so that it moves to the end of the dict.
                self._series.pop(key, None)
                self._series[key] = Series(
                    row.name, row.kind, row.service, metric.get("description") or "", labels, point, row.time
                )
        while len(self._series) > MAX_SERIES:
            del self._series[next(iter(self._series))]

    def at(self, now: int) -> Iterator[Series]:
        """Yield the series that have not ended at `now` (nanoseconds)."""
        return (series for series in tuple(self._series.values()) if now - series.time <= SERIES_TIMEOUT_NS)
