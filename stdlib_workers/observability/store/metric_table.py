"""The tables of metrics and of their rollups: commands for the storage thread.

The commit that stores a number also adds it to its bucket of each of the three levels.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from stdlib_workers.observability.records.aggregation import (
    LEVELS,
    RETENTION,
    Histogram,
    Value,
    bucket_json,
    bucket_of,
    histogram_json,
    merge,
)
from stdlib_workers.observability.records.metrics import Growth, MetricRow
from stdlib_workers.observability.store.sound_rows import read_rows, sound_fields
from stdlib_workers.storage import row_checksum

COLUMNS = "name, service, kind, time, record"
# Metrics of one result.
MAX_LISTED = 10_000
_ROLLUPS = "level, bucket, name, count, sum, min, max, last"
_HISTOGRAMS = "level, bucket, name, bounds, count, sum, min, max, counts"


def write(connection: sqlite3.Connection, rows: Sequence[MetricRow], growth: Growth) -> None:
    """Insert metrics, and add the values of gauges and the growth of all others to the rollups."""
    insert = f"INSERT INTO metrics ({COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?)"
    connection.executemany(insert, [(*row, row_checksum(*row)) for row in rows])
    grown = [growth.of(row) for row in rows]
    roll_up(connection, (value for values, _ in grown for value in values))
    for histogram in (histogram for _, histograms in grown for histogram in histograms):
        for level, interval in enumerate(LEVELS):
            bounds = msgspec.json.encode(histogram.bounds).decode()
            key = (level, bucket_of(histogram.time, interval), histogram.name, bounds)
            stored = _select(
                connection, _HISTOGRAMS, "histogram_rollups", "(level, bucket, name, bounds) = (?, ?, ?, ?)", key
            )
            merged = merge(_histogram(stored[0]), histogram) if stored else histogram
            counts = msgspec.json.encode(merged.counts).decode()
            _keep(
                connection,
                "histogram_rollups",
                (*key, merged.total, *map(_real, (merged.sum, merged.min, merged.max)), counts),
            )


def roll_up(connection: sqlite3.Connection, values: Iterable[Value]) -> None:
    buckets: dict[tuple[int, int, str], list[Value]] = {}
    for value in values:
        for level, interval in enumerate(LEVELS):
            buckets.setdefault((level, bucket_of(value.time, interval), value.name), []).append(value)
    for key, inside in buckets.items():
        numbers = [value.value for value in inside]
        last = inside[-1].last
        total, added, least, most = len(numbers), sum(numbers), min(numbers), max(numbers)
        for stored in _select(connection, _ROLLUPS, "rollups", "(level, bucket, name) = (?, ?, ?)", key):
            *_, count_before, sum_before, min_before, max_before, last_before = stored
            total, added = total + count_before, added + sum_before
            least, most = min(least, min_before), max(most, max_before)
            last = last_before if last is None else last
        _keep(connection, "rollups", (*key, total, *map(_real, (added, least, most, last))))


def _real(number: float | None) -> float | None:
    """Return a number as SQLite gives it back from a column of real numbers: the checksum is of that."""
    return None if number is None else float(number) + 0.0  # it has no -0.0


def _keep(connection: sqlite3.Connection, table: str, fields: tuple[Any, ...]) -> None:
    marks = ", ".join("?" * (len(fields) + 1))
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*fields, row_checksum(*fields)))


def _select(connection: sqlite3.Connection, columns: str, table: str, where: str, values: Any) -> list[tuple[Any, ...]]:
    """Return the sound rows."""
    return sound_fields(table, read_rows(connection, f"SELECT {columns}, checksum FROM {table} WHERE {where}", values))


_INSIDE = "level = ?1 AND bucket >= ?2 AND bucket <= ?3 AND (?4 IS NULL OR name = ?4) ORDER BY bucket, name"


def _histogram(row: Sequence[Any]) -> Histogram:
    _, bucket, name, bounds, count, total, least, most, counts = row
    numbers, edges = tuple(msgspec.json.decode(counts)), tuple(msgspec.json.decode(bounds))
    return Histogram(name, bucket, count, total, least, most, numbers, edges)


def find(
    connection: sqlite3.Connection, start: int | None = None, end: int | None = None, name: str | None = None
) -> list[MetricRow]:
    """Return metrics that came in from `start` to `end` (nanoseconds), the newest MAX_LISTED, the oldest first."""
    filters = {"time >= ?": start, "time <= ?": end, "name = ?": name}
    conditions = {condition: value for condition, value in filters.items() if value is not None}
    where = " AND ".join(conditions) or "1"
    page = f"{where} ORDER BY id DESC LIMIT {MAX_LISTED}"
    return [MetricRow(*row) for row in _select(connection, COLUMNS, "metrics", page, list(conditions.values()))][::-1]


def rollups(connection: sqlite3.Connection, level: int, start: int, end: int, name: str | None) -> list[dict[str, Any]]:
    """Return the buckets of a level that lie inside `start` to `end` (nanoseconds)."""
    interval = LEVELS[level]
    rows = _select(connection, _ROLLUPS, "rollups", _INSIDE, (level, start, end - interval, name))
    return [bucket_json(metric, bucket, interval, *numbers) for _, bucket, metric, *numbers in rows]


def histogram_rollups(
    connection: sqlite3.Connection, level: int, start: int, end: int, name: str | None
) -> list[dict[str, Any]]:
    """Return the histograms of the buckets of a level that lie inside `start` to `end` (nanoseconds)."""
    interval = LEVELS[level]
    rows = _select(connection, _HISTOGRAMS, "histogram_rollups", _INSIDE, (level, start, end - interval, name))
    return [histogram_json(histogram, histogram.time, interval) for histogram in map(_histogram, rows)]


def forget_older(connection: sqlite3.Connection, time: int, now: int) -> None:
    """Forget metrics from before `time`, and rollups that are older at `now` than their level keeps them."""
    connection.execute("DELETE FROM metrics WHERE time < ?", (time,))
    for level, kept in enumerate(RETENTION):
        for table in ("rollups", "histogram_rollups"):
            connection.execute(f"DELETE FROM {table} WHERE level = ? AND bucket < ?", (level, now - kept))


def forget_all_but(connection: sqlite3.Connection, keep: int) -> None:
    """Forget all but the newest `keep` metrics."""
    which = "SELECT id FROM metrics ORDER BY id DESC LIMIT -1 OFFSET ?"
    connection.execute(f"DELETE FROM metrics WHERE id IN ({which})", (keep,))


def forget_oldest(connection: sqlite3.Connection, count: int) -> int:
    """Forget the `count` oldest metrics, and rollups of each kind from the oldest bucket of the finest level on."""
    which = "SELECT id FROM metrics ORDER BY id LIMIT ?"
    forgotten = connection.execute(f"DELETE FROM metrics WHERE id IN ({which})", (count,)).rowcount
    for table, key in (("rollups", "level, bucket, name"), ("histogram_rollups", "level, bucket, name, bounds")):
        which = f"SELECT {key} FROM {table} ORDER BY {key} LIMIT ?"
        forgotten += connection.execute(f"DELETE FROM {table} WHERE ({key}) IN ({which})", (count,)).rowcount
    return forgotten


def count(connection: sqlite3.Connection) -> int:
    """Return how many rows the largest of the three tables has."""
    sizes = ", ".join(f"(SELECT count(*) FROM {table})" for table in ("metrics", "rollups", "histogram_rollups"))
    return int(connection.execute(f"SELECT max({sizes})").fetchone()[0])
