"""Spans, logs and an archive for the tests of the observability worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stdlib_workers.events import Background
from stdlib_workers.observability.config.options import Limits
from stdlib_workers.observability.ingest.batches import Batch, IngestFilter, batch_from_telemetry
from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.schema import SCHEMA
from stdlib_workers.storage import Store

MS = 1_000_000
NOW = 1_800_000_000_000 * MS


def trace_id(number: int) -> str:
    """Return the id of the trace of that number."""
    return f"{number:032x}"


def span_id(number: int) -> str:
    """Return the id of the span of that number."""
    return f"{number:016x}"


def span(number: int = 1, parent: int | None = None, trace: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a span of the engine's telemetry; `start` and `end` in milliseconds after NOW."""
    start, end = fields.pop("start", number), fields.pop("end", None)
    return {
        "trace_id": trace_id(trace),
        "span_id": span_id(number),
        "parent_span_id": None if parent is None else span_id(parent),
        "name": "call math::add",
        "start_time_unix_nano": NOW + int(start * MS),
        "end_time_unix_nano": NOW + int((start + 1 if end is None else end) * MS),
        "status": "ok",
        "attributes": {"function_id": "math::add"},
        "service_name": "math",
        "events": [],
        "links": [],
        **fields,
    }


def log(body: str = "hi", **fields: Any) -> dict[str, Any]:
    """Return a log record of the engine's telemetry; `at` in milliseconds after NOW."""
    at = NOW + fields.pop("at", 0) * MS
    return {
        "timestamp_unix_nano": at,
        "observed_timestamp_unix_nano": at,
        "severity_number": 9,
        "severity_text": "INFO",
        "body": body,
        "attributes": {},
        "trace_id": None,
        "span_id": None,
        "resource": {},
        "service_name": "web",
        "instrumentation_scope_name": None,
        "instrumentation_scope_version": None,
        **fields,
    }


def metric(name: str = "orders", value: float = 1, kind: str = "counter", **fields: Any) -> dict[str, Any]:
    """Return an OTLP metric of one number; `at` in milliseconds after NOW."""
    point = {
        "timeUnixNano": str(NOW + fields.pop("at", 0) * MS),
        "asDouble": value,
        "attributes": [{"key": key, "value": {"stringValue": text}} for key, text in fields.pop("labels", {}).items()],
    }
    body = {"gauge": {"dataPoints": [point]}}
    if kind != "gauge":
        body = {"sum": {"dataPoints": [point], "isMonotonic": kind == "counter"}}
    return {"name": name, "unit": "1", "description": f"number of {name}", **body}


def metrics_request(*metrics: dict[str, Any], service: str = "shop") -> dict[str, Any]:
    """Return an ExportMetricsServiceRequest."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": list(metrics)}]}]}


@contextmanager
def archive(
    path: Path | None = None, limits: Limits | None = None, clock: Callable[[], int] = lambda: NOW
) -> Iterator[Archive]:
    """Yield an archive, in memory unless there is a path."""
    made = Archive(Store(path, SCHEMA), limits or Limits(), clock)
    try:
        yield made
    finally:
        made.close()


def keep(into: Archive, *spans: dict[str, Any], logs: Any = (), frames: Any = (), now: int = NOW) -> None:
    """Write spans, logs and OTLP frames as the engine's telemetry brings them."""
    batch = {"spans": list(spans), "logs": list(logs), "otlp": list(frames)}
    batch = batch_from_telemetry(batch, IngestFilter(), now)
    into.write(Batch(batch.spans, batch.logs, batch.metrics)).result()


class Bench:
    """A pipeline with its background loop, the clock standing at NOW."""

    def __init__(self, kept: Archive) -> None:
        self.archive = kept
        self.background = Background("iii-test")
        self.pipeline = Pipeline(kept, self.background, lambda: NOW)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the background loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.background.loop).result(20)


@contextmanager
def bench(path: Path | None = None, limits: Limits | None = None) -> Iterator[Bench]:
    """Yield a bench that is taken down at the end."""
    with archive(path, limits) as kept:
        made = Bench(kept)
        try:
            yield made
        finally:
            made.background.stop()
