"""Numbers over time: buckets, percentiles and histograms. Pure.

Shapes are the contract's. A histogram's buckets are added only to those with the same bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

# Fewer values make no percentiles.
LEAST_VALUES = 5
PERCENTILES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# The rollups' levels: 1 minute, 5 minutes, 1 hour; and how long each is kept, in nanoseconds.
SECOND = 1_000_000_000
LEVELS = (60 * SECOND, 300 * SECOND, 3600 * SECOND)
KEPT = (3600 * SECOND, 6 * 3600 * SECOND, 7 * 86400 * SECOND)


class Value(NamedTuple):
    """One number of a metric, at a time in nanoseconds."""

    name: str
    time: int
    value: float


class Histogram(NamedTuple):
    """One histogram of a metric; `counts` has one more than `bounds`, or both are empty."""

    name: str
    time: int
    total: int
    sum: float
    min: float | None
    max: float | None
    counts: tuple[int, ...]
    bounds: tuple[float, ...]


def bucket_of(time: int, interval: int) -> int:
    """Return the start of the bucket that holds a time."""
    return time // interval * interval


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return sorted[int(n * p)], capped at the last; the contract's formula. 0 for nothing."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def percentiles(ordered: Sequence[float]) -> dict[str, float]:
    """Return p50 to p99."""
    return {name: percentile(ordered, share) for name, share in PERCENTILES.items()}


def aggregate(values: Iterable[Value], interval: int) -> list[dict[str, Any]]:
    """Return count, sum, min, max, avg (and percentiles of 5 values or more) for each name and bucket."""
    groups: dict[tuple[str, int], list[float]] = {}
    for value in values:
        groups.setdefault((value.name, bucket_of(value.time, interval)), []).append(value.value)
    return [_aggregated(name, start, interval, sorted(found)) for (name, start), found in sorted(groups.items())]


def _aggregated(name: str, start: int, interval: int, ordered: list[float]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "bucket_start_ns": start,
        "bucket_end_ns": start + interval,
        "count": len(ordered),
        "sum": sum(ordered),
        "min": ordered[0],
        "max": ordered[-1],
        "avg": sum(ordered) / len(ordered),
    }
    return found if len(ordered) < LEAST_VALUES else {**found, "percentiles": percentiles(ordered)}


def merge(first: Histogram, second: Histogram) -> Histogram:
    """Return the sum of two histograms with the same bounds; without, only their totals."""
    counts = first.counts
    if len(first.counts) == len(second.counts):
        counts = tuple(a + b for a, b in zip(first.counts, second.counts, strict=True))
    return Histogram(
        first.name,
        min(first.time, second.time),
        first.total + second.total,
        first.sum + second.sum,
        _outer(min, first.min, second.min),
        _outer(max, first.max, second.max),
        counts,
        first.bounds,
    )


def _outer(choose: Any, first: float | None, second: float | None) -> float | None:
    known = [value for value in (first, second) if value is not None]
    return choose(known) if known else None


def aggregate_histograms(histograms: Iterable[Histogram], interval: int) -> list[dict[str, Any]]:
    """Return the sum of the histograms of each name, bucket and set of bounds."""
    groups: dict[tuple[str, int, tuple[float, ...]], Histogram] = {}
    for histogram in histograms:
        key = (histogram.name, bucket_of(histogram.time, interval), histogram.bounds)
        groups[key] = merge(groups[key], histogram) if key in groups else histogram
    return [histogram_shape(found, key[1], interval) for key, found in sorted(groups.items())]


def histogram_shape(histogram: Histogram, start: int, interval: int) -> dict[str, Any]:
    """Return the contract's histogram aggregate."""
    return {
        "name": histogram.name,
        "bucket_start_ns": start,
        "bucket_end_ns": start + interval,
        "total_count": histogram.total,
        "total_sum": histogram.sum,
        "min": histogram.min,
        "max": histogram.max,
        "bucket_counts": list(histogram.counts),
        "explicit_bounds": list(histogram.bounds),
    }


def performance(durations_ms: Iterable[float]) -> dict[str, float]:
    """Return avg, p50, p95, p99, min and max of durations; zeros for none."""
    ordered = sorted(durations_ms)
    figures = {
        "avg": sum(ordered) / len(ordered) if ordered else 0.0,
        "p50": percentile(ordered, 0.5),
        "p95": percentile(ordered, 0.95),
        "p99": percentile(ordered, 0.99),
        "min": ordered[0] if ordered else 0.0,
        "max": ordered[-1] if ordered else 0.0,
    }
    return {f"{name}_duration_ms": value for name, value in figures.items()}
