"""The latest value of every series that SDKs report, for Prometheus to scrape. Pure.

A metric's name, its service and its attributes make a series. One that no SDK reports for five minutes has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from stdlib_workers.observability.records.metrics import MetricRow, metric_json
from stdlib_workers.observability.records.spans import SECOND

MAX_SERIES = 10_000
# As in Prometheus itself.
SERIES_TIMEOUT_NS = 300 * SECOND


class Series(NamedTuple):
    """One series and its latest data point."""

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
                key = (row.name, row.service, msgspec.json.encode(labels).decode())
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
