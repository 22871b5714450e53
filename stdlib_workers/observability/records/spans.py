"""A span as a row of the storage and as JSON. Pure.

The engine's telemetry and `otlp_json` give a span with its attributes as an object. In the row every attribute is a
string (a nested value: JSON text), and secrets are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

import msgspec

from iii.redaction import BatchRedactor, may_hold_secret

# Times are nanoseconds since 1970 everywhere in this worker.
MILLISECOND, SECOND = 1_000_000, 1_000_000_000
# SQLite's integers end here; OTLP's times are unsigned.
MAX_INTEGER = 2**63 - 1
# OpenTelemetry's ids have 32 characters; a longer one is text that does not belong into a key.
MAX_ID = 64
STATUSES = ("ok", "error", "unset")
# What a span may have beside its columns; absent fields stay absent in its JSON.
OPTIONAL = (
    *("status_description", "events", "links", "instrumentation_scope_name", "instrumentation_scope_version"),
    *("flags", "trace_state"),
)
_FUNCTION = ("iii.function.id", "function_id")
_FUNCTION_FIRST = '[["iii.function.id","'
_INVOCATION = "iii.invocation.id"
_NO_ID = f'["{_INVOCATION}",""]'
# Kinds of calls whose text is kept, and characters of the attributes of one.
MAX_CALLS, MAX_CALL = 512, 2048
# The text before and after the id, and whether it is internal.
_calls: dict[tuple[Any, ...], tuple[str, str, int]] = {}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class SpanRow(NamedTuple):
    """One span, in the order of the table's columns. `finish` 0: still running. JSON text: attributes, detail."""

    trace: str
    span: str
    parent: str | None
    name: str
    service: str
    status: str
    start: int
    finish: int
    internal: int
    attributes: str
    detail: str | None


def span_row_from(span: Mapping[str, Any], redactor: BatchRedactor) -> SpanRow | None:
    """Return the row of a span, given as JSON; None when it has no ids."""
    get = span.get
    trace, id = get("trace_id"), get("span_id")
    if not _is_id(trace) or not _is_id(id):
        return None
    parent = get("parent_span_id")
    name = str(get("name") or "")
    attributes, unseen, internal = _attributes_from(get("attributes"))
    detail = _detail(span)
    detail_text = _encode(detail).decode() if detail else ""
    # One look at everything: nearly all spans are harmless.
    if may_hold_secret(f"{name}\n{unseen}{detail_text}"):
        name, attributes = redactor.text(name), _encode(redactor.value(_decode(attributes))).decode()
        detail_text = _encode(redactor.value(detail)).decode() if detail else ""
    status = get("status")
    return SpanRow(
        trace,
        id,
        parent if _is_id(parent) and parent != id else None,
        name,
        str(get("service_name") or "unknown"),
        status if status in STATUSES else "unset",
        clamp(get("start_time_unix_nano")),
        0 if get("pending") else clamp(get("end_time_unix_nano")),
        internal,
        attributes,
        detail_text or None,
    )


def _attributes_from(attributes: Any) -> tuple[str, str, int]:
    """Return a span's attributes as JSON, the part of it that may hold a secret, and whether the span is internal.

    The attributes of calls mostly differ in nothing but the id of the call: the harmless text around it is kept.
    """
    id = attributes.get(_INVOCATION) if isinstance(attributes, dict) else None
    if not isinstance(id, str):
        return _encoded(pairs_from(attributes))
    others = {**attributes, _INVOCATION: ""}
    values = others.values()
    key = (*others, *values, *map(type, values))  # 1, 1.0 and true are equal, but not as text
    try:
        known = _calls.get(key)
    except TypeError:  # a value is an array or an object
        return _encoded(pairs_from(attributes))
    if known is None:
        text, _, internal = _encoded(pairs_from(others))
        if len(text) > MAX_CALL or may_hold_secret(text):
            return _encoded(pairs_from(attributes))
        head, _, tail = text.partition(_NO_ID)
        known = (head + _NO_ID[:-3], "]" + tail, internal)
        if len(_calls) >= MAX_CALLS:
            _calls.clear()
        _calls[key] = known
    own = _encode(id).decode()
    return f"{known[0]}{own}{known[1]}", own, known[2]


def _encoded(pairs: list[list[str]]) -> tuple[str, str, int]:
    text = _encode(pairs).decode()
    return text, text, int(is_internal(pairs))


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def _detail(span: Mapping[str, Any]) -> dict[str, Any]:
    detail = {name: value for name in OPTIONAL if (value := span.get(name))}
    for name in ("events", "links"):
        if name in detail:
            items = detail[name] if isinstance(detail[name], list) else []
            objects = [item for item in items if isinstance(item, dict)]
            detail[name] = [{**item, "attributes": pairs_from(item.get("attributes"))} for item in objects]
    return detail


def span_without_secrets(row: SpanRow, redactor: BatchRedactor) -> SpanRow:
    """Return the row without the secrets that other rows of its batch gave away."""
    detail = None if row.detail is None else redactor.cut_out(row.detail)
    return row._replace(attributes=redactor.cut_out(row.attributes), detail=detail, name=redactor.cut_out(row.name))


def pairs_from(attributes: Any) -> list[list[str]]:
    """Return attributes, given as an object or as pairs, as pairs of strings: a nested value is JSON text."""
    if isinstance(attributes, dict):
        return [[name, item if isinstance(item, str) else _encode(item).decode()] for name, item in attributes.items()]
    if isinstance(attributes, (list, tuple)):
        pairs = (pair for pair in attributes if isinstance(pair, (list, tuple)) and len(pair) == 2)
        return [[str(name), item if isinstance(item, str) else _encode(item).decode()] for name, item in pairs]
    return []


def is_internal(pairs: list[list[str]]) -> bool:
    """Whether the span shows work of the engine for itself, not for the project."""
    for name, value in pairs:
        if name in _FUNCTION and value.startswith("engine::"):
            return True
        if name == "iii.function.kind" and value == "internal":
            return True
    return False


def clamp(value: Any) -> int:
    """Return a number of nanoseconds that the storage can hold; 0 for a value that is no number."""
    if type(value) is int and 0 <= value <= MAX_INTEGER:
        return value
    try:
        return max(0, min(int(value or 0), MAX_INTEGER))
    except (TypeError, ValueError, OverflowError):
        return 0


def span_json(row: SpanRow) -> dict[str, Any]:
    """Return the span as the contract shows it."""
    detail = {} if row.detail is None else _decode(row.detail)
    span = {
        "trace_id": row.trace,
        "span_id": row.span,
        "parent_span_id": row.parent,
        "name": row.name,
        "start_time_unix_nano": row.start,
        "end_time_unix_nano": row.finish,
        "status": row.status,
        "attributes": _decode(row.attributes),
        "service_name": row.service,
        "events": detail.pop("events", []),
        "links": detail.pop("links", []),
        **detail,
    }
    return span if row.finish else {**span, "pending": True}


def attributes_of(row: SpanRow) -> dict[str, str]:
    """Return the attributes by name; of two with one name, the last."""
    return dict(_decode(row.attributes))


def function_in(row: SpanRow) -> str | None:
    """Return the function that a span names, None without."""
    if row.attributes.startswith(_FUNCTION_FIRST):
        # As the engine writes it: no need to read the rest.
        start = len(_FUNCTION_FIRST)
        id = row.attributes[start : row.attributes.index('"', start)]
        if id and "\\" not in id:
            return id
    return function_of(attributes_of(row))


def function_of(attributes: Mapping[str, str]) -> str | None:
    """Return the function that these attributes of a span or log record name, None without."""
    return attributes.get("iii.function.id") or attributes.get("function_id")
