"""The functions `engine::metrics::list` and `engine::rollups::list`: payload in, result out."""

from __future__ import annotations

from functools import partial
from typing import Any

from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.records.aggregation import LEVELS, aggregate, aggregate_histograms, performance
from stdlib_workers.observability.records.call_stats import CallStats
from stdlib_workers.observability.records.metrics import Growth, metric_json
from stdlib_workers.observability.records.spans import MILLISECOND, SECOND
from stdlib_workers.observability.store import metric_table, span_table
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.query_params import QueryParams

# The newest finished spans that the engine's performance is computed from.
MAX_DURATIONS = 10_000
HOUR = 3600 * SECOND
# Of an interval, in seconds: with a longer one everything is one bucket anyway.
MAX_INTERVAL = 10 * 365 * 86_400


class MetricFunctions:
    """Handlers of both functions over one archive and the counts of calls."""

    def __init__(self, archive: Archive, pipeline: Pipeline, call_stats: CallStats) -> None:
        self._archive = archive
        self._clock = pipeline.clock
        self._call_stats = call_stats

    async def list(self, payload: Any) -> dict[str, Any]:
        """List the engine's own metrics and those of SDKs, aggregated when the payload has an interval."""
        params = QueryParams("engine::metrics::list", payload)
        start, end = params.nanoseconds("start_time"), params.nanoseconds("end_time")
        name, interval = params.text("metric_name"), params.whole("aggregate_interval")
        is_range = start is not None and end is not None
        if not is_range:
            start = end = None
        rows = await self._archive.run(lambda connection: metric_table.find(connection, start, end, name))
        durations = await self._archive.run(lambda connection: span_table.durations_ms(connection, MAX_DURATIONS))
        result = {
            "engine_metrics": {**self._call_stats.to_json(), "performance": performance(durations)},
            "sdk_metrics": [metric_json(row) for row in rows],
            "timestamp": self._clock() // MILLISECOND,
        }
        if is_range and interval:
            nanoseconds = min(interval, MAX_INTERVAL) * SECOND
            growth = Growth(since=start or 0)
            grown = [growth.of(row) for row in rows]
            result["aggregated_metrics"] = aggregate((value for values, _ in grown for value in values), nanoseconds)
            histograms = (histogram for _, histograms in grown for histogram in histograms)
            # Beside the contract's list, so that each of the two lists holds objects of one kind.
            if aggregated := aggregate_histograms(histograms, nanoseconds):
                result["aggregated_histograms"] = aggregated
        fields = ("start_time", "end_time", "metric_name", "aggregate_interval")
        query = {field: (payload or {}).get(field) for field in fields}
        return {**result, "query": query} if any(value is not None for value in query.values()) else result

    async def rollups(self, payload: Any) -> dict[str, Any]:
        """List the buckets of one level that lie inside a range, by default the last hour."""
        params = QueryParams("engine::rollups::list", payload)
        now = self._clock()
        start, end = params.nanoseconds("start_time"), params.nanoseconds("end_time")
        start, end = now - HOUR if start is None else start, now if end is None else end
        level, name = params.count("level", 0), params.text("metric_name")
        query = {
            "start_time": start // MILLISECOND,
            "end_time": end // MILLISECOND,
            "level": level,
            "metric_name": name,
        }
        result: dict[str, Any] = {"rollups": [], "histogram_rollups": [], "level": level, "query": query}
        if level < len(LEVELS):
            inside: dict[str, Any] = {"level": level, "start": start, "end": end, "name": name}
            result["rollups"] = await self._archive.run(partial(metric_table.rollups, **inside))
            result["histogram_rollups"] = await self._archive.run(partial(metric_table.histogram_rollups, **inside))
        else:
            result["message"] = "levels are 0 (1 minute), 1 (5 minutes) and 2 (1 hour)"
        return {**result, "source": "stored", "timestamp": now // MILLISECOND}
