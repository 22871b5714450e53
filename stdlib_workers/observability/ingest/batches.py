"""What comes in, made into rows: batches of the engine's feed, and OTLP requests. Pure.

Every row has its secrets taken out here, so nothing behind this place (storage, triggers, exports) ever has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from iii.redaction import BatchRedactor
from stdlib_workers.observability.records.logs import LogRow, log_row_from, log_without_secrets
from stdlib_workers.observability.records.metrics import MetricRow, metric_row_from
from stdlib_workers.observability.records.otlp_json import logs_from, metrics_from, spans_from
from stdlib_workers.observability.records.spans import SpanRow, row_from, without_secrets

# The kinds of frames that SDKs send, and the OTLP/HTTP paths that take the same.
TRACES, METRICS, LOGS = "OTLP", "MTRC", "LOGS"


class Accepts(NamedTuple):
    """What the configuration lets in. `live`: snapshots of running spans too."""

    live: bool = True
    logs: bool = True


class Intake(NamedTuple):
    """The rows of one batch, and how many records were nothing at all."""

    spans: list[SpanRow]
    logs: list[LogRow]
    metrics: list[MetricRow]
    malformed: int = 0


class _Records(NamedTuple):
    spans: list[Any]
    logs: list[Any]
    metrics: list[Any]


def intake_from(batch: Mapping[str, Any], accepts: Accepts, now: int) -> Intake:
    """Return the rows of a batch of the feed; `now` in nanoseconds."""
    records = _Records(_listed(batch.get("spans")), _listed(batch.get("logs")), [])
    malformed = 0
    for frame in _listed(batch.get("otlp")):
        malformed += not (isinstance(frame, list) and len(frame) == 2 and _read(frame[0], frame[1], records))
    found = _rows(records, accepts, now)
    return found._replace(malformed=found.malformed + malformed)


def intake_of_request(kind: str, request: Any, accepts: Accepts, now: int) -> Intake:
    """Return the rows of one decoded OTLP request."""
    records = _Records([], [], [])
    _sort(kind, request, records)
    return _rows(records, accepts, now)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _read(kind: Any, text: Any, records: _Records) -> bool:
    try:
        return _sort(kind, msgspec.json.decode(text), records)
    except (msgspec.DecodeError, TypeError, RecursionError):
        return False


def _sort(kind: Any, request: Any, records: _Records) -> bool:
    if not isinstance(request, dict):
        return False
    if kind == TRACES:
        records.spans.extend(spans_from(request))
    elif kind == METRICS:
        records.metrics.extend(metrics_from(request))
    elif kind == LOGS:
        records.logs.extend(logs_from(request))
    return kind in (TRACES, METRICS, LOGS)


def _rows(records: _Records, accepts: Accepts, now: int) -> Intake:
    redactor = BatchRedactor()
    spans = [row_from(span, redactor) for span in _objects(records.spans)]
    logs = [log_row_from(record, redactor, now) for record in _objects(records.logs)] if accepts.logs else []
    metrics = [metric_row_from(metric, redactor, now) for metric in records.metrics]
    wanted = [row for row in spans if row is not None and (row.finish or accepts.live)]
    return Intake(
        _each(wanted, redactor, without_secrets),
        _each(logs, redactor, log_without_secrets),
        metrics,
        len(records.spans) - len([row for row in spans if row is not None]),
    )


def _objects(items: Iterable[Any]) -> list[Mapping[str, Any]]:
    return [item for item in items if isinstance(item, dict)]


def _each(rows: list[Any], redactor: BatchRedactor, clean: Callable[[Any, BatchRedactor], Any]) -> list[Any]:
    return [clean(row, redactor) for row in rows] if redactor.secrets else rows
