"""`Exporter`: sends finished spans, metrics and logs to an OTLP collector, from a thread of its own.

Spans and metrics leave through OpenTelemetry's own exporters (the extra `observability`), logs as JSON. What waits is
bounded; what comes on top, and a batch that the collector did not take, is counted and dropped: a collector that is
away must cost neither memory nor calls.
"""

from __future__ import annotations

import http.client
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from threading import Condition, Thread
from typing import Any, Protocol
from urllib.error import URLError
from urllib.request import Request, urlopen

from stdlib_workers.observability.config.options import Export
from stdlib_workers.observability.ingest.batches import Intake
from stdlib_workers.observability.records.logs import LogRow, log_shape_from
from stdlib_workers.observability.records.metrics import MetricRow
from stdlib_workers.observability.records.spans import SpanRow
from stdlib_workers.values import encode

# Rows of each kind that wait.
MAX_WAITING = 20_000
# Spans of one request.
MAX_BATCH = 512
TIMEOUT = 30.0
HINT = "exporting spans and metrics needs `pip install 'iii-engine[observability]'`"


class Sink(Protocol):
    """Sends one kind of rows."""

    def send(self, rows: list[Any]) -> bool:
        """Send rows, return whether the collector took them."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class Exporter:
    """The thread and what waits for it. `sinks` by kind: spans, metrics, logs; a kind without sink is not exported."""

    def __init__(self, sinks: Mapping[str, Sink], export: Export) -> None:
        self.dropped: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self._sinks = dict(sinks)
        self._export = export
        self._waiting: dict[str, deque[Any]] = {kind: deque() for kind in sinks}
        self._changed = Condition()
        self._is_closed = False
        self._thread = Thread(target=self._run, name="iii-exporter", daemon=True)
        self._thread.start()

    def take(self, intake: Intake) -> None:
        """Let rows wait to be sent; never blocks."""
        finished = (row for row in intake.spans if row.finish)
        with self._changed:
            for kind, rows in (("spans", finished), ("metrics", intake.metrics), ("logs", intake.logs)):
                self._add(kind, rows)
            if any(len(waiting) >= self._export.batch for waiting in self._waiting.values()):
                self._changed.notify()

    def _add(self, kind: str, rows: Iterable[Any]) -> None:
        waiting = self._waiting.get(kind)
        if waiting is None:
            return
        for row in rows:
            if len(waiting) < MAX_WAITING:
                waiting.append(row)
            else:
                self.dropped[kind] += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._is_closed:
                    self._changed.wait(self._export.interval)
                is_last = self._is_closed
            for kind in self._sinks:
                self._empty(kind)
            if is_last:
                return

    def _empty(self, kind: str) -> None:
        size = self._export.batch if kind == "logs" else MAX_BATCH
        waiting = self._waiting[kind]
        while waiting:
            with self._changed:
                rows = [waiting.popleft() for _ in range(min(size, len(waiting)))]
            if self._sinks[kind].send(rows):
                self.sent[kind] += len(rows)
            else:
                self.dropped[kind] += len(rows)
                # The next one would fail as well, after as long: what waits tries again after the interval.
                return

    def close(self, seconds: float = 5.0) -> None:
        """Send what waits, for at most so long, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(seconds)
        if not self._thread.is_alive():
            for sink in self._sinks.values():
                sink.close()


class LogSink:
    """Logs as JSON to `/v1/logs`."""

    def __init__(self, endpoint: str, headers: Mapping[str, str]) -> None:
        self._url = f"{endpoint}/v1/logs"
        self._headers = {**headers, "content-type": "application/json"}

    def send(self, rows: list[LogRow]) -> bool:
        """POST one request."""
        request = Request(self._url, encode(log_request_from(rows)), self._headers, method="POST")
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:
                return bool(answer.status < 300)
        except (URLError, OSError, http.client.HTTPException):
            return False

    def close(self) -> None:
        """Nothing stays open between requests."""


def log_request_from(rows: Iterable[LogRow]) -> dict[str, Any]:
    """Return an ExportLogsServiceRequest as OTLP's JSON."""
    by_service: dict[str, list[LogRow]] = {}
    for row in rows:
        by_service.setdefault(row.service, []).append(row)
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": [_pair("service.name", service)]},
                "scopeLogs": [{"scope": {"name": "iii"}, "logRecords": [_record(row) for row in found]}],
            }
            for service, found in by_service.items()
        ]
    }


def _record(row: LogRow) -> dict[str, Any]:
    found = {
        "timeUnixNano": str(row.time),
        "observedTimeUnixNano": str(row.observed),
        "severityNumber": row.severity,
        "severityText": row.level,
        "body": {"stringValue": row.body},
        "attributes": [_pair(name, value) for name, value in log_shape_from(row)["attributes"].items()],
        "traceId": row.trace,
        "spanId": row.span,
    }
    return {name: value for name, value in found.items() if value is not None}


def _pair(name: str, value: Any) -> dict[str, Any]:
    return {"key": name, "value": any_value(value)}


def any_value(value: Any) -> dict[str, Any]:
    """Return OTLP's AnyValue of a JSON value; nested ones as JSON text."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": value if isinstance(value, str) else encode(value).decode()}


class SpanSink:
    """Spans through OpenTelemetry's exporter."""

    def __init__(self, endpoint: str, own: dict[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # an extra
        from opentelemetry.sdk.trace.export import SpanExportResult

        from stdlib_workers.observability.records import otel_sdk

        self._exporter = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=TIMEOUT)
        self._success = SpanExportResult.SUCCESS
        self._span = otel_sdk.exportable_span
        # A resource for each service, not for each span.
        self._resource = lru_cache(256)(lambda service: otel_sdk.resource_of(service, own))

    def send(self, rows: list[SpanRow]) -> bool:
        """Send one batch."""
        spans = [self._span(row, self._resource(row.service)) for row in rows]
        return self._exporter.export([span for span in spans if span is not None]) is self._success

    def close(self) -> None:
        """Close the exporter's connections."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # theirs has no types


class MetricSink:
    """Metrics through OpenTelemetry's exporter."""

    def __init__(self, endpoint: str, own: dict[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # an extra
            OTLPMetricExporter,
        )
        from opentelemetry.sdk.metrics.export import MetricExportResult

        from stdlib_workers.observability.records import otel_sdk

        self._exporter = OTLPMetricExporter(f"{endpoint}/v1/metrics", timeout=TIMEOUT)
        self._success = MetricExportResult.SUCCESS
        self._data: Callable[[Iterable[MetricRow], dict[str, str]], Any] = otel_sdk.exportable_metrics
        self._own = own

    def send(self, rows: list[MetricRow]) -> bool:
        """Send one batch."""
        return self._exporter.export(self._data(rows, self._own)) is self._success

    def close(self) -> None:
        """Close the exporter's connections."""
        self._exporter.shutdown()


def exporter_from(export: Export, resource: Mapping[str, str], environ: Mapping[str, str]) -> Exporter | None:
    """Return the exporter the options ask for, None for none. ImportError without the extra."""
    own = {name: value for name, value in resource.items() if name != "service.name"}
    # It retries by itself and says so on every attempt; the count of what was dropped says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    sinks: dict[str, Sink] = {}
    if export.spans:
        sinks["spans"] = SpanSink(export.endpoint, own)
    if export.metrics:
        sinks["metrics"] = MetricSink(export.endpoint, own)
    if export.logs:
        sinks["logs"] = LogSink(export.endpoint, headers_from(environ))
    return Exporter(sinks, export) if sinks else None


def headers_from(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for logs: OpenTelemetry's variables, `a=b,c=d`."""
    text = environ.get("OTEL_EXPORTER_OTLP_LOGS_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS") or ""
    pairs = (item.partition("=") for item in text.split(",") if "=" in item)
    return {name.strip(): value.strip() for name, _, value in pairs}
