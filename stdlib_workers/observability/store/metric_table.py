"""The tables of metrics and of their rollups. Commands for the storage thread; called by `archive.py`.

Every number that comes in is added to its bucket of all three levels at once, in the same commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from stdlib_workers.observability.records.aggregation import KEPT, LEVELS, Histogram, Value, bucket_of, merge
from stdlib_workers.observability.records.metrics import MetricRow, histograms_of, values_of

COLUMNS = "name, service, kind, time, record"
# Metrics one answer may hold.
MAX_LISTED = 10_000
_ADD = """
INSERT INTO rollups (level, bucket, name, count, sum, min, max) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (level, bucket, name) DO UPDATE SET
  count = count + excluded.count, sum = sum + excluded.sum, min = min(min, excluded.min), max = max(max, excluded.max)
"""
_HISTOGRAMS = "level, bucket, name, bounds, count, sum, min, max, counts"


def write(connection: sqlite3.Connection, rows: Sequence[MetricRow]) -> None:
    """Insert metrics and feed the rollups."""
    connection.executemany(f"INSERT INTO metrics ({COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows)
    roll_up(connection, (value for row in rows for value in values_of(row)))
    _roll_up_histograms(connection, [histogram for row in rows for histogram in histograms_of(row)])


def roll_up(connection: sqlite3.Connection, values: Iterable[Value]) -> None:
    """Add numbers to their buckets."""
    buckets: dict[tuple[int, int, str], list[float]] = {}
    for value in values:
        for level, interval in enumerate(LEVELS):
            buckets.setdefault((level, bucket_of(value.time, interval), value.name), []).append(value.value)
    rows = [(*key, len(found), sum(found), min(found), max(found)) for key, found in buckets.items()]
    connection.executemany(_ADD, rows)


def _roll_up_histograms(connection: sqlite3.Connection, histograms: Sequence[Histogram]) -> None:
    for histogram in histograms:
        for level, interval in enumerate(LEVELS):
            bounds = msgspec.json.encode(histogram.bounds).decode()
            key = (level, bucket_of(histogram.time, interval), histogram.name, bounds)
            query = f"SELECT {_HISTOGRAMS} FROM histogram_rollups WHERE (level, bucket, name, bounds) = (?, ?, ?, ?)"
            stored = connection.execute(query, key).fetchone()
            found = merge(_histogram(stored)[2], histogram) if stored else histogram
            counts = msgspec.json.encode(found.counts).decode()
            connection.execute(
                f"INSERT OR REPLACE INTO histogram_rollups ({_HISTOGRAMS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, found.total, found.sum, found.min, found.max, counts),
            )


def _histogram(row: Sequence[Any]) -> tuple[int, int, Histogram]:
    level, bucket, name, bounds, count, total, least, most, counts = row
    numbers, edges = tuple(msgspec.json.decode(counts)), tuple(msgspec.json.decode(bounds))
    return level, bucket, Histogram(name, bucket, count, total, least, most, numbers, edges)


def find(
    connection: sqlite3.Connection, start: int | None = None, end: int | None = None, name: str | None = None
) -> list[MetricRow]:
    """Return metrics that came in from `start` to `end` (nanoseconds), the newest MAX_LISTED, the oldest first."""
    given = {"time >= ?": start, "time <= ?": end, "name = ?": name}
    found = {part: value for part, value in given.items() if value is not None}
    query = f"SELECT {COLUMNS} FROM metrics WHERE {' AND '.join(found) or '1'} ORDER BY id DESC LIMIT {MAX_LISTED}"
    return [MetricRow(*row) for row in connection.execute(query, list(found.values()))][::-1]


def rollups(connection: sqlite3.Connection, level: int, start: int, end: int, name: str | None) -> list[dict[str, Any]]:
    """Return the buckets of a level that lie inside `start` to `end` (nanoseconds)."""
    query = (
        "SELECT name, bucket, count, sum, min, max FROM rollups WHERE level = ? AND bucket >= ? AND bucket <= ?"
        " AND (?4 IS NULL OR name = ?4) ORDER BY bucket, name"
    )
    interval = LEVELS[level]
    return [
        {
            "name": found,
            "bucket_start_ns": bucket,
            "bucket_end_ns": bucket + interval,
            "count": count,
            "sum": total,
            "min": least,
            "max": most,
            "avg": total / count,
        }
        for found, bucket, count, total, least, most in connection.execute(query, (level, start, end - interval, name))
    ]


def histogram_rollups(
    connection: sqlite3.Connection, level: int, start: int, end: int, name: str | None
) -> list[tuple[int, Histogram]]:
    """Return the buckets of a level that lie inside `start` to `end`, each with its start."""
    query = (
        f"SELECT {_HISTOGRAMS} FROM histogram_rollups WHERE level = ? AND bucket >= ? AND bucket <= ?"
        " AND (?4 IS NULL OR name = ?4) ORDER BY bucket, name"
    )
    found = connection.execute(query, (level, start, end - LEVELS[level], name))
    return [(bucket, histogram) for _, bucket, histogram in map(_histogram, found)]


def forget_older(connection: sqlite3.Connection, time: int, now: int) -> None:
    """Forget metrics of before `time`, and rollups past what their level keeps."""
    connection.execute("DELETE FROM metrics WHERE time < ?", (time,))
    for level, kept in enumerate(KEPT):
        for table in ("rollups", "histogram_rollups"):
            connection.execute(f"DELETE FROM {table} WHERE level = ? AND bucket < ?", (level, now - kept))


def forget_oldest(connection: sqlite3.Connection, keep: int) -> None:
    """Forget all but the newest `keep` metrics."""
    which = "SELECT id FROM metrics ORDER BY id DESC LIMIT -1 OFFSET ?"
    connection.execute(f"DELETE FROM metrics WHERE id IN ({which})", (keep,))
