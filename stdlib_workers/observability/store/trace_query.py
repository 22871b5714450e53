"""The query of `engine::traces::list`, and the SQL that answers it. Pure.

Rows are roots; with `trace_id` or `search_all_spans` they are all spans. With `search_all_spans` the filters `name`
and `attributes` ask for the trace: one of its spans has that name, and for every pair some span has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from stdlib_workers.observability.records.spans import MAX_INTEGER
from stdlib_workers.observability.store.query_params import MILLISECOND, QueryParams

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


class Sql(NamedTuple):
    """A condition, an order, and the values of both."""

    where: str
    order: str
    values: dict[str, Any]


def trace_query_from(payload: Any) -> TraceQuery:
    """Return the query a payload asks for. InvocationError for a field that does not fit."""
    asking = QueryParams("engine::traces::list", payload)
    return TraceQuery(
        asking.text("trace_id"),
        asking.texts("trace_ids"),
        asking.text("service_name"),
        asking.text("name"),
        asking.text("status"),
        asking.number("min_duration_ms"),
        asking.number("max_duration_ms"),
        _time(asking.integer("start_time")),
        _time(asking.integer("end_time")),
        asking.pairs("attributes"),
        asking.pairs("exclude_attributes"),
        asking.flag("include_internal"),
        asking.flag("search_all_spans"),
        asking.text("sort_by") or "start_time",
        (asking.text("sort_order") or "asc") != "asc",
        asking.count("offset", 0),
        asking.count("limit", 100),
    )


def _time(milliseconds: int | None) -> int | None:
    # A time past all times is the end of time: a filter, not a value that anybody stores.
    return None if milliseconds is None else min(milliseconds * MILLISECOND, MAX_INTEGER)


def sql_from(query: TraceQuery, now: int) -> Sql:
    """Return the SQL of a query at a time in nanoseconds."""
    values: dict[str, Any] = {"now": now}
    parts = [*_row_parts(query, values), *_text_parts(query, values), *_attribute_parts(query, values)]
    direction = "DESC" if query.descending else "ASC"
    order = _ORDERS.get(query.sort_by, "start")
    return Sql(" AND ".join(parts) or "1", f"{order} {direction}, id {direction}", values)


def _row_parts(query: TraceQuery, values: dict[str, Any]) -> list[str]:
    given = {
        "trace": ("trace = :trace", query.trace_id),
        "low": (f"{_DURATION} >= :low", _nanoseconds(query.min_duration_ms)),
        "high": (f"{_DURATION} <= :high", _nanoseconds(query.max_duration_ms)),
        "until": ("start <= :until", query.end),
        "since": ("(CASE finish WHEN 0 THEN :now ELSE finish END) >= :since", query.start),
    }
    values.update({name: value for name, (_, value) in given.items() if value is not None})
    parts = [part for part, value in given.values() if value is not None]
    if query.trace_id is None and query.trace_ids is not None:
        values["traces"] = msgspec.json.encode(query.trace_ids).decode()
        parts.append("trace IN (SELECT value FROM json_each(:traces))")
    if query.trace_id is None and not query.search_all_spans:
        parts.append("root = 1")
    return parts if query.include_internal else [*parts, "internal = 0"]


def _nanoseconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds * 1e6


def _text_parts(query: TraceQuery, values: dict[str, Any]) -> list[str]:
    parts = []
    for column, needle in (("service", query.service_name), ("status", query.status), ("name", query.name)):
        if needle is not None:
            values[column] = needle.lower()
            # SQLite's own lower() knows ASCII only; ours costs a call into Python for every row.
            fold = "lower" if needle.isascii() else "iii_lower"
            part = f"instr({fold}({{of}}{column}), :{column})"
            parts.append(_of_trace(part) if column == "name" and query.search_all_spans else part.format(of=""))
    return parts


def _attribute_parts(query: TraceQuery, values: dict[str, Any]) -> list[str]:
    parts = []
    for kind, pairs in (("a", query.attributes), ("x", query.exclude_attributes)):
        for number, (key, value) in enumerate(pairs):
            at = f"{kind}{number}"
            # The text of the pair is looked for first, it is faster by far; what it finds is then read.
            text = msgspec.json.encode([key, value]).decode()
            values |= {f"{at}t": text, f"{at}k": key, f"{at}v": value}
            part = _PAIR.format(of="{of}", at=at)
            if kind == "x":
                parts.append(f"NOT ({part.format(of='')})")
            else:
                parts.append(_of_trace(part) if query.search_all_spans else part.format(of=""))
    return parts


def _of_trace(part: str) -> str:
    return f"trace IN (SELECT other.trace FROM spans AS other WHERE {part.format(of='other.')})"
