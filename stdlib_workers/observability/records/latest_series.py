"""The latest value of every series that SDKs report, for those who ask "now": Prometheus. Pure.

A series is a metric's name, its service and its attributes. What has not been heard of for five minutes is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from stdlib_workers.observability.records.metrics import MetricRow, metric_shape_from

MAX_SERIES = 10_000
# As Prometheus itself: a series that is silent this long has ended.
KEPT_NS = 300 * 1_000_000_000


class Series(NamedTuple):
    """One series and its latest data point."""

    name: str
    kind: str
    service: str
    description: str
    labels: Mapping[str, Any]
    point: Mapping[str, Any]
    time: int


class Latest:
    """The series of all SDKs."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, str], Series] = {}

    def add(self, rows: Iterable[MetricRow]) -> None:
        """Take over the newest points; the oldest series go when there are too many."""
        for row in rows:
            shape = metric_shape_from(row)
            for point in shape["data_points"]:
                labels = point.get("attributes") or {}
                key = (row.name, row.service, msgspec.json.encode(labels).decode())
                # Out and in again: the dict's order is that of the last report.
                self._series.pop(key, None)
                self._series[key] = Series(
                    row.name, row.kind, row.service, shape.get("description") or "", labels, point, row.time
                )
        while len(self._series) > MAX_SERIES:
            del self._series[next(iter(self._series))]

    def at(self, now: int) -> Iterator[Series]:
        """Yield the series that are alive at `now` (nanoseconds)."""
        return (series for series in tuple(self._series.values()) if now - series.time <= KEPT_NS)
