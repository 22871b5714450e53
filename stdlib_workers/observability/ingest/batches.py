"""Batches of the engine's telemetry and OTLP requests, made into rows. Pure.

Secrets are taken out of every row here, so nothing behind this module (storage, triggers, exports) ever has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from iii.redaction import BatchRedactor
from stdlib_workers.observability.records.aggregation import Value
from stdlib_workers.observability.records.logs import LogRow, log_row_from, log_without_secrets
from stdlib_workers.observability.records.metrics import MetricRow, metric_row_from
from stdlib_workers.observability.records.otlp_json import logs_from, metrics_from, spans_from
from stdlib_workers.observability.records.spans import SpanRow, span_row_from, span_without_secrets

# The kinds of OTLP requests, as the engine names the frames in which SDKs send them.
TRACES, METRICS, LOGS = "OTLP", "MTRC", "LOGS"


class _Records(NamedTuple):
    """Records of each kind, in the JSON of the contract: not yet rows. `refused` counts what can be none, by reason."""

    spans: list[Any]
    logs: list[Any]
    metrics: list[Any]
    refused: Counter[str]


class Batch(NamedTuple):
    """Rows that are stored in one commit, and that every subscriber of the pipeline then gets.

    `values` are samples for the rollups alone; `malformed` counts records that made no row, `reasons` says why.
    """

    spans: Sequence[SpanRow] = ()
    logs: Sequence[LogRow] = ()
    metrics: Sequence[MetricRow] = ()
    values: Sequence[Value] = ()
    malformed: int = 0
    reasons: str = ""


class IngestFilter(NamedTuple):
    """What the configuration lets in. `live`: snapshots of running spans too."""

    live: bool = True
    logs: bool = True


def batch_from_telemetry(telemetry: Mapping[str, Any], filter: IngestFilter, now: int) -> Batch:
    """Return the rows of a batch of the engine's telemetry; `now` in nanoseconds."""
    records = _Records(_list(telemetry.get("spans")), _list(telemetry.get("logs")), [], Counter())
    for frame in _list(telemetry.get("otlp")):
        try:
            kind, text = frame
            is_request = _add_request(kind, msgspec.json.decode(text), records)
        except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
            is_request = False
        if not is_request:
            records.refused["no OTLP request"] += 1
    return _batch_from(records, filter, now)


def batch_from_otlp(kind: str, request: Any, filter: IngestFilter, now: int) -> Batch:
    """Return the rows of one decoded OTLP request."""
    records = _Records([], [], [], Counter())
    _add_request(kind, request, records)
    return _batch_from(records, filter, now)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _add_request(kind: Any, request: Any, records: _Records) -> bool:
    """Add the records of an OTLP request; False if it is none."""
    if not isinstance(request, dict):
        return False
    if kind == TRACES:
        records.spans.extend(spans_from(request))
    elif kind == LOGS:
        records.logs.extend(logs_from(request))
    elif kind == METRICS:
        records.metrics.extend(metrics_from(request, records.refused))
    else:
        return False
    return True


def _batch_from(records: _Records, filter: IngestFilter, now: int) -> Batch:
    redactor = BatchRedactor()
    spans = [row for span in records.spans if isinstance(span, dict) and (row := span_row_from(span, redactor))]
    refused = records.refused
    refused["ids that are missing, all zeros or too long"] += len(records.spans) - len(spans)
    if not filter.live:
        spans = [row for row in spans if row.finish]
    logs = records.logs if filter.logs else []
    log_rows = [log_row_from(record, redactor, now) for record in logs if isinstance(record, dict)]
    metrics = [metric_row_from(metric, redactor, now) for metric in records.metrics]
    if redactor.secrets:
        spans = [span_without_secrets(row, redactor) for row in spans]
        log_rows = [log_without_secrets(row, redactor) for row in log_rows]
    reasons = ", ".join(f"{count} with {reason}" for reason, count in refused.items() if count)
    return Batch(spans, log_rows, metrics, malformed=refused.total(), reasons=reasons)
