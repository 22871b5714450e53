"""Numbers over time: buckets, percentiles and histograms. Pure.

What the functions return has the fields of the public contract. Histograms are added only to those with the same
bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from stdlib_workers.observability.records.spans import SECOND

# Percentiles of fewer values would say nothing.
LEAST_VALUES = 5
PERCENTILES = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# The intervals of the rollups' levels (1 minute, 5 minutes, 1 hour), and how long each is kept; nanoseconds.
LEVELS = (60 * SECOND, 300 * SECOND, 3600 * SECOND)
RETENTION = (3600 * SECOND, 6 * 3600 * SECOND, 7 * 86400 * SECOND)


class Value(NamedTuple):
    """One number of a metric, at a time in nanoseconds; of a counter: how much it has grown, and where it stands."""

    name: str
    time: int
    value: float
    last: float | None = None


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
    return time // interval * interval


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return `ordered[int(n * share)]`, capped at the last (the contract's formula); 0 without numbers."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def aggregate(values: Iterable[Value], interval: int) -> list[dict[str, Any]]:
    """Return count, sum, min, max, avg (and percentiles of 5 values or more) for each name and bucket."""
    groups: dict[tuple[str, int], list[Value]] = {}
    for value in values:
        groups.setdefault((value.name, bucket_of(value.time, interval)), []).append(value)
    buckets = []
    for (name, start), inside in sorted(groups.items()):
        ordered = sorted(value.value for value in inside)
        numbers = (len(ordered), sum(ordered), ordered[0], ordered[-1], inside[-1].last)
        bucket = bucket_json(name, start, interval, *numbers)
        if len(ordered) >= LEAST_VALUES:
            bucket["percentiles"] = {name: percentile(ordered, share) for name, share in PERCENTILES.items()}
        buckets.append(bucket)
    return buckets


def bucket_json(
    name: str, start: int, interval: int, count: int, total: float, least: float, most: float, last: float | None
) -> dict[str, Any]:
    """Return the sum of a bucket that starts at `start` as the contract shows it.

    That of a counter has its rate a second and its last value too: what is summed up is how much it has grown.
    """
    counter = {} if last is None else {"rate": total * SECOND / interval, "last": last}
    return {
        "name": name,
        "bucket_start_ns": start,
        "bucket_end_ns": start + interval,
        "count": count,
        "sum": total,
        "min": least,
        "max": most,
        "avg": total / count,
        **counter,
    }


def merge(first: Histogram, second: Histogram) -> Histogram:
    """Return the sum of two histograms with the same bounds. Bucket counts of another length are left out."""
    counts = first.counts
    if len(first.counts) == len(second.counts):
        counts = tuple(a + b for a, b in zip(first.counts, second.counts, strict=True))
    return Histogram(
        first.name,
        min(first.time, second.time),
        first.total + second.total,
        first.sum + second.sum,
        min((least for least in (first.min, second.min) if least is not None), default=None),
        max((most for most in (first.max, second.max) if most is not None), default=None),
        counts,
        first.bounds,
    )


def aggregate_histograms(histograms: Iterable[Histogram], interval: int) -> list[dict[str, Any]]:
    """Return the sum of the histograms of each name, bucket and set of bounds."""
    groups: dict[tuple[str, int, tuple[float, ...]], Histogram] = {}
    for histogram in histograms:
        key = (histogram.name, bucket_of(histogram.time, interval), histogram.bounds)
        groups[key] = merge(groups[key], histogram) if key in groups else histogram
    return [histogram_json(histogram, key[1], interval) for key, histogram in sorted(groups.items())]


def histogram_json(histogram: Histogram, start: int, interval: int) -> dict[str, Any]:
    """Return the sum of a bucket that starts at `start` as the contract shows it."""
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
    ordered = sorted(durations_ms) or [0.0]
    statistics = {
        "avg": sum(ordered) / len(ordered),
        "p50": percentile(ordered, 0.5),
        "p95": percentile(ordered, 0.95),
        "p99": percentile(ordered, 0.99),
        "min": ordered[0],
        "max": ordered[-1],
    }
    return {f"{name}_duration_ms": value for name, value in statistics.items()}
