"""A log record as a row of the storage and as JSON. Pure.

Records come from `engine::log::*`, from the engine's telemetry and from OTLP. A row has no terminal colors and no
secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from iii.redaction import BatchRedactor
from stdlib_workers.observability.records.spans import clamp

# OpenTelemetry's numbers of the five levels.
SEVERITIES = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17}
_NAMES = ((21, "FATAL"), (17, "ERROR"), (13, "WARN"), (9, "INFO"), (5, "DEBUG"), (1, "TRACE"))
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_=>0-9a-z])")
_ZEROS = re.compile(r"0*\Z")
_SCOPE = ("instrumentation_scope_name", "instrumentation_scope_version")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class LogRow(NamedTuple):
    """One record, in the order of the table's columns. JSON text: detail (attributes, resource, scope)."""

    time: int
    observed: int
    severity: int
    level: str
    body: str
    trace: str | None
    span: str | None
    service: str
    detail: str


# The detail of a record that has none.
NO_DETAIL = _encode({"attributes": {}, "resource": {}, **dict.fromkeys(_SCOPE)}).decode()


def severity_name(number: int) -> str:
    """Return the name of a severity number, as OpenTelemetry groups them."""
    return next((name for least, name in _NAMES if number >= least), "INFO")


def log_row_from(record: Mapping[str, Any], redactor: BatchRedactor, now: int) -> LogRow:
    """Return the row of a record, given as the contract's JSON. Missing fields get their defaults."""
    observed = clamp(record.get("observed_timestamp_unix_nano")) or now
    number = clamp(record.get("severity_number"))
    level = str(record.get("severity_text") or severity_name(number or 9)).upper()
    body = record.get("body")
    text = body if isinstance(body, str) else _encode(body).decode()
    attributes = record.get("attributes")
    detail = {
        "attributes": redactor.value(attributes) if isinstance(attributes, dict) else {},
        "resource": redactor.value(record.get("resource") or {}),
        **{name: record.get(name) for name in _SCOPE},
    }
    return LogRow(
        clamp(record.get("timestamp_unix_nano")) or observed,
        observed,
        number or SEVERITIES.get(level.lower(), 9),
        level,
        redactor.text(_ANSI.sub("", text) if "\x1b" in text else text),
        _id(record.get("trace_id")),
        _id(record.get("span_id")),
        str(record.get("service_name") or "unknown"),
        _encode(detail).decode(),
    )


def log_without_secrets(row: LogRow, redactor: BatchRedactor) -> LogRow:
    """Return the row without the secrets that other records of its batch gave away."""
    return row._replace(body=redactor.cut_out(row.body), detail=redactor.cut_out(row.detail))


def _id(value: Any) -> str | None:
    # Some SDKs write zeros for no id.
    return value if isinstance(value, str) and not _ZEROS.match(value) else None


def log_json(row: LogRow) -> dict[str, Any]:
    """Return the record as the contract shows it, all twelve keys."""
    detail = _decode(row.detail)
    return {
        "timestamp_unix_nano": row.time,
        "observed_timestamp_unix_nano": row.observed,
        "severity_number": row.severity,
        "severity_text": row.level,
        "body": row.body,
        "attributes": detail["attributes"],
        "trace_id": row.trace,
        "span_id": row.span,
        "resource": detail["resource"],
        "service_name": row.service,
        **{name: detail[name] for name in _SCOPE},
    }
