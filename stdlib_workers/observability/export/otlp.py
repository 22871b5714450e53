"""`Exporter`: sends finished spans, metrics and logs to an OTLP collector, from a thread of its own.

OpenTelemetry's own exporters (the extra `observability`) send spans and metrics; logs leave as JSON. The queues are
bounded. Rows over the bound, and rows that the collector did not take, are counted and dropped: a collector that does
not answer must cost neither memory nor calls.
"""

from __future__ import annotations

import http.client
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from threading import Condition, Thread
from typing import Any, Protocol
from urllib.error import URLError
from urllib.request import Request, urlopen

from stdlib_workers.observability.config.options import Export
from stdlib_workers.observability.ingest.batches import Batch
from stdlib_workers.observability.records.logs import LogRow, log_json
from stdlib_workers.observability.records.spans import SpanRow
from stdlib_workers.values import encode

# Rows of each kind.
MAX_QUEUED = 20_000
# Spans of one request.
MAX_BATCH = 512
REQUEST_TIMEOUT = 30.0


class Sink(Protocol):
    """Sends rows of one kind; `send` returns whether the collector took them."""

    def send(self, rows: list[Any]) -> bool: ...

    def close(self) -> None: ...


class Exporter:
    """The thread and its queues. `sinks` by kind: spans, metrics, logs; a kind without a sink is not exported."""

    def __init__(self, sinks: Mapping[str, Sink], export: Export) -> None:
        self.dropped: Counter[str] = Counter()
        self._sinks = dict(sinks)
        self._export = export
        self._queues: dict[str, deque[Any]] = {kind: deque() for kind in sinks}
        self._changed = Condition()
        self._is_closed = False
        self._thread = Thread(target=self._run, name="iii-exporter", daemon=True)
        self._thread.start()

    def on_batch(self, batch: Batch) -> None:
        """Queue the rows of a batch; never blocks."""
        rows_by_kind: dict[str, Iterable[Any]] = {
            "spans": (row for row in batch.spans if row.finish),
            "metrics": batch.metrics,
            "logs": batch.logs,
        }
        with self._changed:
            for kind, queue in self._queues.items():
                for row in rows_by_kind[kind]:
                    if len(queue) < MAX_QUEUED:
                        queue.append(row)
                    else:
                        self.dropped[kind] += 1
            if any(len(queue) >= self._export.batch for queue in self._queues.values()):
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._is_closed:
                    self._changed.wait(self._export.interval)
                is_last = self._is_closed
            for kind in self._sinks:
                self._drain(kind)
            if is_last:
                return

    def _drain(self, kind: str) -> None:
        size = self._export.batch if kind == "logs" else MAX_BATCH
        queue = self._queues[kind]
        while queue:
            with self._changed:
                rows = [queue.popleft() for _ in range(min(size, len(queue)))]
            if not self._sinks[kind].send(rows):
                self.dropped[kind] += len(rows)
                # The next request would fail as well, after as long: the rest of the queue waits for the interval.
                return

    def close(self, seconds: float = 5.0) -> None:
        """Send what is queued, for at most `seconds`, and end the thread."""
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
        request = Request(self._url, encode(log_request_from(rows)), self._headers, method="POST")
        try:
            with urlopen(request, timeout=REQUEST_TIMEOUT) as response:
                return bool(response.status < 300)
        except (URLError, OSError, http.client.HTTPException):
            return False

    def close(self) -> None:
        """Nothing stays open between requests."""


def log_request_from(rows: Iterable[LogRow]) -> dict[str, Any]:
    records: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        record = {
            "timeUnixNano": str(row.time),
            "observedTimeUnixNano": str(row.observed),
            "severityNumber": row.severity,
            "severityText": row.level,
            "body": {"stringValue": row.body},
            "attributes": _attributes(log_json(row)["attributes"]),
            "traceId": row.trace,
            "spanId": row.span,
        }
        present = {name: value for name, value in record.items() if value is not None}
        records.setdefault(row.service, []).append(present)
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": _attributes({"service.name": service})},
                "scopeLogs": [{"scope": {"name": "iii"}, "logRecords": service_records}],
            }
            for service, service_records in records.items()
        ]
    }


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": any_value(value)} for name, value in values.items()]


def any_value(value: Any) -> dict[str, Any]:
    """Return OTLP's AnyValue of a JSON value; nested ones as JSON text."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": value if isinstance(value, str) else encode(value).decode()}


class OtelSink:
    """Spans or metrics through one of OpenTelemetry's exporters; `convert` makes rows into what it takes."""

    def __init__(self, exporter: Any, success: object, convert: Callable[[list[Any]], Any]) -> None:
        self._exporter = exporter
        self._success = success
        self._convert = convert

    def send(self, rows: list[Any]) -> bool:
        return self._exporter.export(self._convert(rows)) is self._success

    def close(self) -> None:
        self._exporter.shutdown()


def exporter_from(export: Export, resource: Mapping[str, str], environ: Mapping[str, str]) -> Exporter | None:
    """Return the exporter of the options; None when they export nothing. ImportError without the extra."""
    project = {name: value for name, value in resource.items() if name != "service.name"}
    # OpenTelemetry retries, and logs every attempt; the count of dropped rows says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    sinks: dict[str, Sink] = {}
    if export.spans:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult

        from stdlib_workers.observability.records.otel_sdk import otel_span, resource_of

        # One resource for each service, not for each span.
        resource_for = lru_cache(256)(partial(resource_of, project=project))

        def otel_spans(rows: list[SpanRow]) -> list[Any]:
            spans = (otel_span(row, resource_for(row.service)) for row in rows)
            return [span for span in spans if span is not None]

        spans = OTLPSpanExporter(f"{export.endpoint}/v1/traces", timeout=REQUEST_TIMEOUT)
        sinks["spans"] = OtelSink(spans, SpanExportResult.SUCCESS, otel_spans)
    if export.metrics:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import MetricExportResult

        from stdlib_workers.observability.records.otel_sdk import otel_metrics

        metrics = OTLPMetricExporter(f"{export.endpoint}/v1/metrics", timeout=REQUEST_TIMEOUT)
        sinks["metrics"] = OtelSink(metrics, MetricExportResult.SUCCESS, partial(otel_metrics, project=project))
    if export.logs:
        sinks["logs"] = LogSink(export.endpoint, headers_from(environ))
    return Exporter(sinks, export) if sinks else None


def headers_from(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers for logs: OpenTelemetry's variables, `a=b,c=d`."""
    text = environ.get("OTEL_EXPORTER_OTLP_LOGS_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS") or ""
    pairs = (item.partition("=") for item in text.split(",") if "=" in item)
    return {name.strip(): value.strip() for name, _, value in pairs}
