"""The table of spans: commands for the storage thread that write, find and forget them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from stdlib_workers.observability.records.spans import SpanRow
from stdlib_workers.observability.store.sound_rows import DAMAGED, read_rows
from stdlib_workers.observability.store.trace_query import COLUMNS, TraceQuery, sql_from
from stdlib_workers.storage import row_checksum

# Spans of one trace that a tree shows; a trace with more is a loop that does not end.
MAX_TREE = 20_000
# The newest spans that are grouped.
MAX_GROUPED = 200_000

# A snapshot of a running span never replaces the finished span. Any other span with the same ids is replaced in place.
_INSERT = f"""
INSERT INTO spans ({COLUMNS}, checksum, root) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,
  ?3 IS NULL OR NOT EXISTS (SELECT 1 FROM spans AS above WHERE above.trace = ?1 AND above.span = ?3))
ON CONFLICT (trace, span) DO UPDATE SET
  parent = excluded.parent, name = excluded.name, service = excluded.service, status = excluded.status,
  start = excluded.start, finish = excluded.finish, internal = excluded.internal, root = excluded.root,
  attributes = excluded.attributes, detail = excluded.detail, checksum = excluded.checksum
WHERE excluded.finish > 0 OR spans.finish = 0
"""
_ADOPT = "UPDATE spans SET root = 0 WHERE root = 1 AND trace = ? AND parent = ?"
_ORPHANS = "SELECT count(*) FROM (SELECT 1 FROM spans INDEXED BY orphans WHERE root = 1 AND parent IS NOT NULL LIMIT ?)"
_ADOPT_ALL = """
UPDATE spans INDEXED BY orphans SET root = 0 WHERE root = 1 AND parent IS NOT NULL AND EXISTS (
  SELECT 1 FROM spans AS above WHERE above.trace = spans.trace AND above.span = spans.parent)
"""
# After spans were forgotten, their children are roots.
_ORPHAN = """
UPDATE spans SET root = 1 WHERE root = 0 AND trace IN (SELECT trace FROM gone) AND NOT EXISTS (
  SELECT 1 FROM spans AS above WHERE above.trace = spans.trace AND above.span = spans.parent)
"""


def write(connection: sqlite3.Connection, rows: Sequence[SpanRow]) -> None:
    """Insert or replace spans."""
    # Parents start before their children: in this order most children find their parent at once.
    ordered = sorted(rows, key=lambda row: row.start)
    connection.executemany(_INSERT, [(*row, row_checksum(*row)) for row in ordered])
    # Few orphans: look for the parent of each. Many (their traces begin outside of the project): look for the children
    # of each new span.
    if connection.execute(_ORPHANS, (len(rows),)).fetchone()[0] < len(rows):
        connection.execute(_ADOPT_ALL)
    else:
        connection.executemany(_ADOPT, [(row.trace, row.span) for row in ordered])


def find(connection: sqlite3.Connection, query: TraceQuery, now: int) -> tuple[list[SpanRow], int]:
    """Return a page of rows and how many there are in all."""
    connection.create_function("iii_lower", 1, str.lower, deterministic=True)
    where, order, values = sql_from(query, now)
    total: int = connection.execute(f"SELECT count(*) FROM spans WHERE {where}", values).fetchone()[0]
    page = f"{where} ORDER BY {order} LIMIT :limit OFFSET :offset"
    return _select(connection, page, {**values, "limit": query.limit, "offset": query.offset}), total


def trace(connection: sqlite3.Connection, trace_id: str) -> list[SpanRow]:
    return _select(connection, "trace = ? ORDER BY start, id LIMIT ?", (trace_id, MAX_TREE))


def _select(connection: sqlite3.Connection, where: str, values: Any) -> list[SpanRow]:
    """Return spans. Of one that is damaged nothing but its place in the trace is told, and that with its name."""
    rows = read_rows(connection, f"SELECT {COLUMNS}, checksum FROM spans WHERE {where}", values)
    return [SpanRow(*fields) if is_sound else _damaged(SpanRow(*fields)) for fields, is_sound in rows]


def _damaged(row: SpanRow) -> SpanRow:
    return row._replace(name=DAMAGED, service="unknown", status="unset", attributes="[]", detail=None)


def tagged(connection: sqlite3.Connection, traces: Sequence[str]) -> list[SpanRow]:
    """Return the spans of these traces that may carry tags, the oldest first."""
    placeholders = ", ".join("?" * len(traces))
    where = (
        f"trace IN ({placeholders}) AND (instr(attributes, '[\"iii.tag.')"
        " OR instr(attributes, '[\"iii.session.') OR instr(attributes, '[\"iii.message.id')) ORDER BY start, id"
    )
    return _select(connection, where, traces)


def with_attribute(
    connection: sqlite3.Connection, attribute: str, since: int, *, include_internal: bool
) -> list[SpanRow]:
    """Return the spans that may have an attribute and started at `since` (nanoseconds) or later."""
    where = "start >= ? AND instr(attributes, ?) AND internal <= ? ORDER BY start DESC LIMIT ?"
    from_key = '["' + attribute.replace("\\", "\\\\").replace('"', '\\"')
    return _select(connection, where, (since, from_key, int(include_internal), MAX_GROUPED))


def durations_ms(connection: sqlite3.Connection, limit: int) -> list[float]:
    rows = _select(connection, "finish > 0 ORDER BY id DESC LIMIT ?", (limit,))
    return [(row.finish - row.start) / 1e6 for row in rows if row.name != DAMAGED]


def clear(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM spans")


def forget_older(connection: sqlite3.Connection, time: int, pending_time: int, limit: int) -> int:
    """Forget spans that started before `time`, and snapshots of running ones before `pending_time`."""
    which = "SELECT id FROM spans WHERE start < :old OR (finish = 0 AND start < :pending) LIMIT :limit"
    return _forget(connection, which, {"old": time, "pending": pending_time, "limit": limit})


def forget_oldest(connection: sqlite3.Connection, count: int) -> int:
    return _forget(connection, "SELECT id FROM spans ORDER BY id LIMIT :count", {"count": count})


def forget_traces(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Forget the whole traces of these rows; return how many spans that were. So no span loses its parent alone."""
    of_rows = "SELECT trace FROM spans WHERE id IN (SELECT value FROM json_each(?))"
    which = (msgspec.json.encode(ids).decode(),)
    return connection.execute(f"DELETE FROM spans WHERE trace IN ({of_rows})", which).rowcount


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM spans").fetchone()[0])


def _forget(connection: sqlite3.Connection, which: str, values: dict[str, Any]) -> int:
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY, trace TEXT)")
    connection.execute("DELETE FROM gone")
    connection.execute(f"INSERT INTO gone SELECT id, trace FROM spans WHERE id IN ({which})", values)
    forgotten = connection.execute("DELETE FROM spans WHERE id IN (SELECT id FROM gone)").rowcount
    if forgotten:
        connection.execute(_ORPHAN)
    return forgotten
