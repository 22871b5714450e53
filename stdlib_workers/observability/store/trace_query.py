"""The query of `engine::traces::list`, and the SQL that answers it. Pure.

The rows are roots; with `trace_id` or `search_all_spans`, all spans. With `search_all_spans` the filters `name` and
`attributes` select traces: one span of the trace has that name, and for every pair some span of it has the pair.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from stdlib_workers.observability.records.spans import MAX_INTEGER, MILLISECOND
from stdlib_workers.observability.store.query_params import QueryParams

COLUMNS = "trace, span, parent, name, service, status, start, finish, internal, attributes, detail"
_DURATION = "(CASE finish WHEN 0 THEN max(:now - start, 0) ELSE finish - start END)"
_ORDERS = {
    "start_time": "start",
    "duration": _DURATION,
    "duration_ms": _DURATION,
    "service_name": "service",
    "name": "name",
}
_PAIR = (
    "instr({of}attributes, :{at}t) AND EXISTS (SELECT 1 FROM json_each({of}attributes) AS pair"
    " WHERE json_extract(pair.value, '$[0]') = :{at}k AND json_extract(pair.value, '$[1]') = :{at}v)"
)


class TraceQuery(NamedTuple):
    """One query; times in nanoseconds, None: any."""

    trace_id: str | None = None
    trace_ids: tuple[str, ...] | None = None
    service_name: str | None = None
    name: str | None = None
    status: str | None = None
    min_duration_ms: float | None = None
    max_duration_ms: float | None = None
    start: int | None = None
    end: int | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    exclude_attributes: tuple[tuple[str, str], ...] = ()
    include_internal: bool = False
    search_all_spans: bool = False
    sort_by: str = "start_time"
    descending: bool = False
    offset: int = 0
    limit: int = 100


def trace_query_from(payload: Any) -> TraceQuery:
    """Return the query of a payload. InvocationError for a field that does not fit."""
    params = QueryParams("engine::traces::list", payload)
    return TraceQuery(
        params.text("trace_id"),
        params.texts("trace_ids"),
        params.text("service_name"),
        params.text("name"),
        params.text("status"),
        params.number("min_duration_ms"),
        params.number("max_duration_ms"),
        _time(params.whole("start_time")),
        _time(params.whole("end_time")),
        params.pairs("attributes"),
        params.pairs("exclude_attributes"),
        params.flag("include_internal"),
        params.flag("search_all_spans"),
        params.text("sort_by") or "start_time",
        (params.text("sort_order") or "asc") != "asc",
        params.count("offset", 0),
        params.count("limit", 100),
    )


def _time(milliseconds: int | None) -> int | None:
    # Only a filter, and never stored: a time that nanoseconds cannot hold is as good as the last that they can.
    return None if milliseconds is None else min(milliseconds * MILLISECOND, MAX_INTEGER)


def sql_from(query: TraceQuery, now: int) -> tuple[str, str, dict[str, Any]]:
    """Return the condition and the order of a query at a time in nanoseconds, and the values of both."""
    values: dict[str, Any] = {"now": now}
    conditions = [*_row_conditions(query, values), *_text_conditions(query, values), *_pair_conditions(query, values)]
    direction = "DESC" if query.descending else "ASC"
    order = _ORDERS.get(query.sort_by, "start")
    return " AND ".join(conditions) or "1", f"{order} {direction}, id {direction}", values


def _row_conditions(query: TraceQuery, values: dict[str, Any]) -> list[str]:
    filters = {
        "trace": ("trace = :trace", query.trace_id),
        "low": (f"{_DURATION} >= :low", _nanoseconds(query.min_duration_ms)),
        "high": (f"{_DURATION} <= :high", _nanoseconds(query.max_duration_ms)),
        "until": ("start <= :until", query.end),
        "since": ("(CASE finish WHEN 0 THEN :now ELSE finish END) >= :since", query.start),
    }
    values.update({name: value for name, (_, value) in filters.items() if value is not None})
    conditions = [condition for condition, value in filters.values() if value is not None]
    if query.trace_id is None and query.trace_ids is not None:
        values["traces"] = msgspec.json.encode(query.trace_ids).decode()
        conditions.append("trace IN (SELECT value FROM json_each(:traces))")
    if query.trace_id is None and not query.search_all_spans:
        conditions.append("root = 1")
    return conditions if query.include_internal else [*conditions, "internal = 0"]


def _nanoseconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds * float(MILLISECOND)


def _text_conditions(query: TraceQuery, values: dict[str, Any]) -> list[str]:
    conditions = []
    for column, needle in (("service", query.service_name), ("status", query.status), ("name", query.name)):
        if needle is not None:
            values[column] = needle.lower()
            # SQLite's own lower() knows ASCII only; `iii_lower` costs a call into Python for every row.
            lower = "lower" if needle.isascii() else "iii_lower"
            condition = f"instr({lower}({{of}}{column}), :{column})"
            of_trace = column == "name" and query.search_all_spans
            conditions.append(_in_trace(condition) if of_trace else condition.format(of=""))
    return conditions


def _pair_conditions(query: TraceQuery, values: dict[str, Any]) -> list[str]:
    conditions = []
    for prefix, pairs in (("a", query.attributes), ("x", query.exclude_attributes)):
        for number, (key, value) in enumerate(pairs):
            at = f"{prefix}{number}"
            # Searching for the text of the pair is faster by far; only rows that have it are parsed.
            text = msgspec.json.encode([key, value]).decode()
            values |= {f"{at}t": text, f"{at}k": key, f"{at}v": value}
            condition = _PAIR.format(of="{of}", at=at)
            if prefix == "x":
                conditions.append(f"NOT ({condition.format(of='')})")
            else:
                conditions.append(_in_trace(condition) if query.search_all_spans else condition.format(of=""))
    return conditions


def _in_trace(condition: str) -> str:
    """Return the condition that some span of the row's trace fulfills `condition`."""
    return f"trace IN (SELECT other.trace FROM spans AS other WHERE {condition.format(of='other.')})"
