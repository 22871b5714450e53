"""`engine::metrics::list` and `engine::rollups::list`: payload in, result out."""

from __future__ import annotations

from typing import Any

from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.records.aggregation import (
    LEVELS,
    SECOND,
    aggregate,
    aggregate_histograms,
    histogram_shape,
    performance,
)
from stdlib_workers.observability.records.call_stats import Figures
from stdlib_workers.observability.records.metrics import MetricRow, histograms_of, metric_shape_from, values_of
from stdlib_workers.observability.store import metric_table, span_table
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.query_params import QueryParams

# The newest finished spans that the engine's performance is computed from.
MAX_DURATIONS = 10_000
HOUR = 3600 * SECOND
# An interval in seconds; a longer one is no longer one.
MAX_INTERVAL = 10 * 365 * 86_400


class MetricFunctions:
    """Both over one archive and the figures of the engine."""

    def __init__(self, archive: Archive, pipeline: Pipeline, figures: Figures) -> None:
        self._archive = archive
        self._clock = pipeline.clock
        self._figures = figures

    async def list(self, payload: Any) -> dict[str, Any]:
        """List the engine's figures and the metrics of SDKs, aggregated when an interval is given."""
        asking = QueryParams("engine::metrics::list", payload)
        start, end = asking.nanoseconds("start_time"), asking.nanoseconds("end_time")
        name, interval = asking.text("metric_name"), asking.integer("aggregate_interval")
        is_range = start is not None and end is not None
        if not is_range:
            start = end = None
        rows = await self._archive.run(lambda connection: metric_table.find(connection, start, end, name))
        found = {
            "engine_metrics": await self._engine_metrics(),
            "sdk_metrics": [metric_shape_from(row) for row in rows],
            "timestamp": self._clock() // 1_000_000,
        }
        if is_range and interval:
            found |= _aggregated(rows, min(interval, MAX_INTERVAL) * SECOND)
        asked = ("start_time", "end_time", "metric_name", "aggregate_interval")
        query = {field: (payload or {}).get(field) for field in asked}
        return {**found, "query": query} if any(value is not None for value in query.values()) else found

    async def _engine_metrics(self) -> dict[str, Any]:
        durations = await self._archive.run(lambda connection: span_table.durations_ms(connection, MAX_DURATIONS))
        return {**self._figures.shape(), "performance": performance(durations)}

    async def rollups(self, payload: Any) -> dict[str, Any]:
        """List the buckets of one level that lie inside a range, by default the last hour."""
        asking = QueryParams("engine::rollups::list", payload)
        now = self._clock()
        start, end = asking.nanoseconds("start_time"), asking.nanoseconds("end_time")
        start, end = now - HOUR if start is None else start, now if end is None else end
        level, name = asking.count("level", 0), asking.text("metric_name")
        query = {"start_time": start // 1_000_000, "end_time": end // 1_000_000, "level": level, "metric_name": name}
        found: dict[str, Any] = {"rollups": [], "histogram_rollups": [], "level": level, "query": query}
        if level < len(LEVELS):
            found["rollups"] = await self._archive.run(
                lambda connection: metric_table.rollups(connection, level, start, end, name)
            )
            histograms = await self._archive.run(
                lambda connection: metric_table.histogram_rollups(connection, level, start, end, name)
            )
            found["histogram_rollups"] = [histogram_shape(each, at, LEVELS[level]) for at, each in histograms]
        else:
            found["message"] = "levels are 0 (1 minute), 1 (5 minutes) and 2 (1 hour)"
        return {**found, "source": "stored", "timestamp": now // 1_000_000}


def _aggregated(rows: list[MetricRow], interval: int) -> dict[str, Any]:
    numbers = aggregate((value for row in rows for value in values_of(row)), interval)
    histograms = aggregate_histograms((each for row in rows for each in histograms_of(row)), interval)
    # Beside the contract's list, so that each of the two holds one shape only.
    more = {"aggregated_histograms": histograms} if histograms else {}
    return {"aggregated_metrics": numbers, **more}
