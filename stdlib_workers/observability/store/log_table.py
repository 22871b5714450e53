"""The table of logs: the query of `engine::logs::list` and its commands for the storage thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from stdlib_workers.observability.records.logs import NO_DETAIL, LogRow
from stdlib_workers.observability.records.spans import MAX_INTEGER, MILLISECOND
from stdlib_workers.observability.store.query_params import QueryParams
from stdlib_workers.observability.store.sound_rows import DAMAGED, read_rows
from stdlib_workers.storage import row_checksum

COLUMNS = "time, observed, severity, level, body, trace, span, service, detail"
# The limit of a line is 16 MiB, and escapes make every text longer. A record has this many bytes beside its texts.
MAX_RESULT_BYTES, RECORD_BYTES = 6_000_000, 300


class LogQuery(NamedTuple):
    """One query; times in milliseconds, None: any."""

    start_time: int | None = None
    end_time: int | None = None
    trace_id: str | None = None
    span_id: str | None = None
    severity_min: int | None = None
    severity_text: str | None = None
    offset: int | None = None
    limit: int | None = None


def log_query_from(payload: Any) -> LogQuery:
    """Return the query of a payload. InvocationError for a field that does not fit."""
    params = QueryParams("engine::logs::list", payload)
    return LogQuery(
        params.whole("start_time"),
        params.whole("end_time"),
        params.text("trace_id"),
        params.text("span_id"),
        params.whole("severity_min"),
        params.text("severity_text"),
        params.whole("offset"),
        params.whole("limit"),
    )


def write(connection: sqlite3.Connection, rows: Sequence[LogRow]) -> None:
    insert = f"INSERT INTO logs ({COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    connection.executemany(insert, [(*row, row_checksum(*row)) for row in rows])


def find(connection: sqlite3.Connection, query: LogQuery) -> tuple[list[LogRow], int]:
    """Return a page of records, the newest first, and how many there are in all."""
    if max(query.start_time or 0, query.end_time or 0) > MAX_INTEGER // MILLISECOND:
        return [], 0
    conditions = {
        "time >= ?": None if query.start_time is None else query.start_time * MILLISECOND,
        # Inclusive of the whole millisecond.
        "time < ?": None if query.end_time is None else (query.end_time + 1) * MILLISECOND,
        "trace = ?": query.trace_id,
        "span = ?": query.span_id,
        "severity >= ?": query.severity_min,
        "level = ?": None if query.severity_text is None else query.severity_text.upper(),
    }
    conditions = {condition: value for condition, value in conditions.items() if value is not None}
    where, values = " AND ".join(conditions) or "1", list(conditions.values())
    total: int = connection.execute(f"SELECT count(*) FROM logs WHERE {where}", values).fetchone()[0]
    page = f"SELECT {COLUMNS}, checksum FROM logs WHERE {where} ORDER BY time DESC, id DESC LIMIT ? OFFSET ?"
    most = MAX_RESULT_BYTES // RECORD_BYTES
    limit = most if query.limit is None or query.limit < 0 else min(query.limit, most)
    rows: list[LogRow] = []
    size = 0
    for fields, is_sound in read_rows(connection, page, (*values, limit, query.offset or 0)):
        row = (
            LogRow(*fields) if is_sound else LogRow(*fields)._replace(body=DAMAGED, service="unknown", detail=NO_DETAIL)
        )
        size += RECORD_BYTES + len(row.body) + len(row.detail)
        if size > MAX_RESULT_BYTES and rows:
            break
        rows.append(row)
    return rows, total


def clear(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM logs")


def forget_older(connection: sqlite3.Connection, time: int, limit: int) -> int:
    """Forget records from before `time`; return how many, at most `limit`."""
    which = "SELECT id FROM logs WHERE time < ? LIMIT ?"
    return connection.execute(f"DELETE FROM logs WHERE id IN ({which})", (time, limit)).rowcount


def forget_oldest(connection: sqlite3.Connection, count: int) -> int:
    which = "SELECT id FROM logs ORDER BY id LIMIT ?"
    return connection.execute(f"DELETE FROM logs WHERE id IN ({which})", (count,)).rowcount


def forget(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    which = "SELECT value FROM json_each(?)"
    return connection.execute(f"DELETE FROM logs WHERE id IN ({which})", (msgspec.json.encode(ids).decode(),)).rowcount


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM logs").fetchone()[0])
