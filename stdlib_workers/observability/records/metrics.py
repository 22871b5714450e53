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
_encode = msgspec.json.Encoder(order="deterministic").encode
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


def series_key(row: MetricRow, metric: Mapping[str, Any], point: Mapping[str, Any]) -> bytes:
    """Return what tells one series from another: OpenTelemetry's resource, scope, name, kind and attributes."""
    origin = (metric.get("resource"), metric["instrumentation_scope_name"], metric["instrumentation_scope_version"])
    return _encode([row.name, row.kind, row.service, origin, point.get("attributes") or {}])


def is_empty(point: Mapping[str, Any]) -> bool:
    """Whether the point has no value: its series has ended."""
    return "value" not in point and "count" not in point


def total_of(first: Mapping[str, Any] | None, second: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the sum of two points of a series that is reported by its changes. `second` when they do not fit."""
    if first is None or is_empty(first):
        return second
    if "value" in second:
        return {**second, "value": first["value"] + second["value"]}
    if first["explicit_bounds"] != second["explicit_bounds"]:
        return second
    return {
        **second,
        "count": first["count"] + second["count"],
        "sum": None if None in (first["sum"], second["sum"]) else first["sum"] + second["sum"],
        "bucket_counts": [a + b for a, b in zip(first["bucket_counts"], second["bucket_counts"], strict=False)],
        "min": min((point["min"] for point in (first, second) if point["min"] is not None), default=None),
        "max": max((point["max"] for point in (first, second) if point["max"] is not None), default=None),
    }


class Growth:
    """How much the counters and histograms of SDKs have grown from one report to the next, whatever they report.

    The first reading of a series that was there before `since` (nanoseconds) is where it stands, and no growth.
    """

    def __init__(self, since: int) -> None:
        self._since = since
        self._latest: dict[bytes, Mapping[str, Any]] = {}
        self._last: dict[str, float] = {}  # the sum of the latest values of all series of a name

    def of(self, row: MetricRow) -> tuple[list[Value], list[Histogram]]:
        """Return what a report adds to the rollups: the values of gauges, the growth of all others."""
        values, histograms = [], []
        metric = metric_json(row)
        is_delta = metric.get("aggregation_temporality") == "delta"
        for point in metric["data_points"]:
            if is_empty(point):
                continue
            time = clamp(point.get("timestamp_unix_nano")) or row.time
            if row.kind == "gauge" or (row.kind == "updowncounter" and not is_delta):
                values.append(Value(row.name, time, float(point["value"])))
                continue
            key = series_key(row, metric, point)
            previous = self._latest.pop(key, None)
            latest = total_of(previous, point) if is_delta else point
            self._latest[key] = latest
            growth = point if is_delta else self._growth(previous, point)
            if row.kind == "histogram":
                if growth["count"]:
                    histograms.append(_histogram(row.name, time, growth))
            elif row.kind == "updowncounter":
                values.append(Value(row.name, time, float(latest["value"])))
            else:
                before = 0 if previous is None else previous["value"]
                last = self._last[row.name] = self._last.get(row.name, 0.0) + latest["value"] - before
                values.append(Value(row.name, time, float(growth["value"]), last))
        while len(self._latest) > MAX_SERIES:
            del self._latest[next(iter(self._latest))]
        while len(self._last) > MAX_SERIES:
            del self._last[next(iter(self._last))]
        return values, histograms

    def _growth(self, previous: Mapping[str, Any] | None, point: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return how much a series has grown that is reported by its sum."""
        start = point.get("start_time_unix_nano", 0)
        size = "value" if "value" in point else "count"
        if previous is None:
            return point if start and start >= self._since else {**point, size: 0}
        has_restarted = point[size] < previous[size] or start > previous.get("start_time_unix_nano", start)
        if has_restarted:
            return point
        if size == "value":
            return {"value": point["value"] - previous["value"]}
        if point["explicit_bounds"] != previous["explicit_bounds"]:
            return point
        return {
            **point,
            "count": point["count"] - previous["count"],
            "sum": (point["sum"] or 0.0) - (previous["sum"] or 0.0),
            "bucket_counts": [
                max(0, now - before)
                for now, before in zip(point["bucket_counts"], previous["bucket_counts"], strict=False)
            ],
        }


def _histogram(name: str, time: int, point: Mapping[str, Any]) -> Histogram:
    counts, bounds = tuple(point["bucket_counts"]), tuple(point["explicit_bounds"])
    return Histogram(name, time, point["count"], point["sum"] or 0.0, point["min"], point["max"], counts, bounds)


def values_of(row: MetricRow) -> Iterator[float]:
    """Yield the numbers of a metric as they were reported: of a histogram, the sums."""
    for point in metric_json(row)["data_points"]:
        if not is_empty(point):
            yield float(point["value"] if "value" in point else point["sum"] or 0.0)


class Series(NamedTuple):
    """One series, and its latest data point. `scope` is the instrumentation scope's name."""

    name: str
    kind: str
    service: str
    description: str
    resource: Mapping[str, Any]
    scope: str | None
    labels: Mapping[str, Any]
    point: Mapping[str, Any]
    time: int


class LatestSeries:
    """The series of all SDKs, in the order of their last report. What is reported by its changes is summed up."""

    def __init__(self) -> None:
        self._series: dict[bytes, Series] = {}

    def add(self, rows: Iterable[MetricRow]) -> None:
        """Keep the points of these metrics; over MAX_SERIES, forget the series that were reported longest ago."""
        for row in rows:
            metric = metric_json(row)
            is_delta = metric.get("aggregation_temporality") == "delta"
            for point in metric["data_points"]:
                key = series_key(row, metric, point)
                # Removed first: so that it moves to the end of the dict.
                previous = self._series.pop(key, None)
                if is_empty(point):
                    continue
                self._series[key] = Series(
                    row.name,
                    row.kind,
                    row.service,
                    metric.get("description") or "",
                    metric.get("resource") or {},
                    metric["instrumentation_scope_name"],
                    point.get("attributes") or {},
                    total_of(previous.point, point) if is_delta and previous is not None else point,
                    row.time,
                )
        while len(self._series) > MAX_SERIES:
            del self._series[next(iter(self._series))]

    def at(self, now: int) -> Iterator[Series]:
        """Yield the series that have not ended at `now` (nanoseconds)."""
        return (series for series in tuple(self._series.values()) if now - series.time <= SERIES_TIMEOUT_NS)
