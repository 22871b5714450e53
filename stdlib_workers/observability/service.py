"""Joins the parts of the worker and registers them with the engine.

Handlers run on the SDK's loop; what follows a commit (triggers, the live stream, alerts) on the background loop; HTTP
on threads of its own. They meet in the archive's one storage thread.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from iii import InvocationError, Trigger, Worker
from iii.declarations import load_declarations
from stdlib_workers.events import Background
from stdlib_workers.observability.alerts import AlertEvaluator, RunAction
from stdlib_workers.observability.config.alert_rules import AlertRule
from stdlib_workers.observability.config.options import ListenerOptions, Options
from stdlib_workers.observability.export.live_stream import LiveStream
from stdlib_workers.observability.export.otlp import Exporter, exporter_from
from stdlib_workers.observability.functions.diagnostics import Diagnostics
from stdlib_workers.observability.functions.engine_stats import EngineStats
from stdlib_workers.observability.functions.logs import LogFunctions
from stdlib_workers.observability.functions.metrics import MetricFunctions
from stdlib_workers.observability.functions.traces import TraceFunctions
from stdlib_workers.observability.ingest.batches import Batch, IngestFilter, batch_from_telemetry
from stdlib_workers.observability.ingest.http_server import HttpServer, Route
from stdlib_workers.observability.ingest.otlp_http import routes
from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.ingest.triggers import Triggers
from stdlib_workers.observability.records.call_stats import CallStats
from stdlib_workers.observability.records.metrics import LatestSeries
from stdlib_workers.observability.records.spans import MILLISECOND, clamp
from stdlib_workers.observability.store.archive import Archive

# Between two samples of the engine's counters and two sweeps of the archive.
SAMPLE_INTERVAL = 10.0
# At most, for what the exporter has queued when the worker stops.
EXPORT_CLOSE_TIMEOUT = 5.0
INGEST_FUNCTION = "observability::ingest"
WORKERS_CHANGED_FUNCTION = "observability::on-workers-changed"


class Service:
    """The observability of one project."""

    def __init__(self, worker: Worker, archive: Archive, options: Options) -> None:
        self._worker = worker
        self._archive = archive
        self._options = options
        self._background = background = Background("iii-observability")
        self._token = secrets.token_hex(16)
        self._servers: list[HttpServer] = []
        self._filter = IngestFilter(live=options.live, logs=options.logs_enabled)
        self.pipeline = Pipeline(archive, background)
        self.call_stats = CallStats()
        self.latest_series = LatestSeries()
        self.triggers = Triggers(worker, background.start)
        self.engine_stats = EngineStats(worker, self.call_stats)
        self.evaluator = AlertEvaluator(archive, self.call_stats, options.alerts, self._action_runner(options))
        self._traces = TraceFunctions(archive, self.pipeline, options.limits.bytes, options.collapse)
        self._logs = LogFunctions(archive, self.pipeline, options)
        self._diagnostics = Diagnostics(options, self.pipeline)
        self._feed: Trigger | None = None
        self.pipeline.subscribers += [
            lambda batch: self.call_stats.add_spans(batch.spans),
            lambda batch: self.latest_series.add(batch.metrics),
            self.triggers.on_batch,
        ]
        if options.streams:
            self.pipeline.subscribers.append(LiveStream(worker, background.start).on_batch)
        self._exporter: Exporter | None = None
        try:
            self._exporter = exporter_from(options.export, options.resource, os.environ)
        except ImportError:
            extra = "pip install 'iii-engine[otlp]'"
            write_log(f"exporting spans and metrics needs `{extra}`; nothing is exported")
        if self._exporter is not None:
            self.pipeline.subscribers.append(self._exporter.on_batch)

    def take(self, options: Options) -> None:
        """Go by other options from now on, as far as they can change while this runs; on any thread."""
        before, self._options = self._options, options
        self._archive.limits = options.limits
        self._traces.max_bytes, self._traces.collapse = options.limits.bytes, options.collapse
        self._logs.options = self._diagnostics.options = options
        if _feed_config(before) != _feed_config(options) and options.enabled:
            self._bind_feed()
        if (before.alerts, before.allow_private) != (options.alerts, options.allow_private):
            self._background.wait(self.evaluator.take(options.alerts, self._action_runner(options)))

    def _bind_feed(self) -> None:
        """Ask the engine for its telemetry, as the options want it."""
        earlier, self._feed = (
            self._feed,
            self._worker.register_trigger(
                {
                    "type": "telemetry",
                    "function_id": INGEST_FUNCTION,
                    "config": _feed_config(self._options),
                    "metadata": {"feed": self._token},
                }
            ),
        )
        if earlier is not None:
            earlier.unregister()

    def _action_runner(self, options: Options) -> RunAction:
        if not options.alerts:
            return _do_nothing
        # Imported late: the HTTP client takes 0.2 s, and most projects have no alerts.
        from stdlib_workers.observability.actions import ActionRunner, warnings_about

        for text in warnings_about(options.alerts, allow_private=options.allow_private):
            write_log(text)
        return ActionRunner(self._worker, allow_private=options.allow_private).run

    def register(self) -> None:
        """Register everything. The trigger types come first: bindings have to be there before the first batch."""
        functions, trigger_types = load_declarations(Path(__file__).parent)
        self._worker.register_trigger_type(trigger_types["log"], self.triggers.logs)
        self._worker.register_trigger_type(trigger_types["trace"], self.triggers.traces)
        for function_id, handler in self._functions().items():
            self._worker.register_function(function_id, handler, **functions[function_id])
        for function_id, handler in ((INGEST_FUNCTION, self.ingest), (WORKERS_CHANGED_FUNCTION, self.workers_changed)):
            self._worker.register_function(function_id, handler, metadata={"internal": True}, **functions[function_id])
        if self._options.enabled:
            self._start_servers()
            self._worker.register_trigger(
                {
                    "type": "engine::workers-available",
                    "function_id": WORKERS_CHANGED_FUNCTION,
                    "config": {},
                    "metadata": {"feed": self._token},
                }
            )
            self._bind_feed()
            for work in (self._sample_and_sweep(), self.evaluator.run(self.pipeline.clock)):
                self._background.call(self._background.start, work)
        self._worker.before_stop(self.close)

    def _functions(self) -> dict[str, Any]:
        traces, logs, diagnostics = self._traces, self._logs, self._diagnostics
        metrics = MetricFunctions(self._archive, self.pipeline, self.call_stats)
        return {
            **{f"engine::traces::{name}": getattr(traces, name) for name in ("list", "tree", "group_by", "clear")},
            **{f"engine::log::{level}": logs.writer(level) for level in ("trace", "debug", "info", "warn", "error")},
            "engine::logs::list": logs.list,
            "engine::logs::clear": logs.clear,
            "engine::metrics::list": metrics.list,
            "engine::rollups::list": metrics.rollups,
            "engine::alerts::list": self.alerts,
            "engine::alerts::evaluate": self.evaluate,
            "engine::sampling::rules": diagnostics.sampling,
            "engine::health::check": diagnostics.health,
            "engine::baggage::get": diagnostics.baggage,
            "engine::baggage::set": diagnostics.set_baggage,
            "engine::baggage::get_all": diagnostics.all_baggage,
        }

    async def ingest(self, payload: Any, metadata: Any = None) -> None:
        """Store a batch of the engine's telemetry. The answer, once it is committed, asks for the next batch."""
        self._check_feed(INGEST_FUNCTION, metadata)
        if not isinstance(payload, dict):
            raise InvocationError("deserialization_error", f"{INGEST_FUNCTION}: a batch is an object")
        dropped = payload.get("dropped") or {}
        batch = batch_from_telemetry(payload, self._filter, self.pipeline.clock())
        self.call_stats.take_counts(payload.get("calls"))
        self.pipeline.count_dropped(clamp(dropped.get("spans")))
        lost = {kind: clamp(dropped.get(kind)) for kind in ("logs", "otlp")}
        self.pipeline.lost.update(lost)
        await self.pipeline.ingest(batch)

    def workers_changed(self, payload: Any, metadata: Any = None) -> None:
        """Count workers that connect and disconnect."""
        self._check_feed(WORKERS_CHANGED_FUNCTION, metadata)
        self.call_stats.add_event(payload["event"], payload["worker_id"])

    def _check_feed(self, function_id: str, metadata: Any) -> None:
        # Any worker can call a function. Only the engine knows the binding's metadata, and passes it with each event.
        if metadata != {"feed": self._token}:
            raise InvocationError("FORBIDDEN", f"{function_id} takes what the engine sends only")

    def alerts(self, _: Any) -> dict[str, Any]:
        """List the alert rules and their states."""
        return self.evaluator.to_json(self.pipeline.clock() // MILLISECOND)

    async def evaluate(self, _: Any) -> dict[str, Any]:
        """Evaluate all alert rules now."""
        now = self.pipeline.clock()
        future = asyncio.run_coroutine_threadsafe(self.evaluator.evaluate(now), self._background.loop)
        events = await asyncio.wrap_future(future)
        result: dict[str, Any] = {"evaluated": self.evaluator.enabled_rules, "timestamp": now // MILLISECOND}
        return {**result, "triggered_alerts": events} if events else result

    async def _sample_and_sweep(self) -> None:
        while True:
            now = self.pipeline.clock()
            try:
                await self._archive.write(Batch(values=await self.engine_stats.sample(now)))
                while await self._archive.sweep(now):
                    # In portions: batches that wait are written in between.
                    continue
            except InvocationError as error:
                self.pipeline.last_error = str(error)
            await asyncio.sleep(SAMPLE_INTERVAL)

    def _start_servers(self) -> None:
        options = self._options
        if options.metrics_enabled and options.prometheus.enabled:
            # Imported late: it takes 0.1 s, and not every project has a Prometheus.
            from stdlib_workers.observability.export.prometheus import Snapshot, route

            def snapshot() -> Snapshot:
                workers, counters = self.engine_stats.workers(), self.engine_stats.counters()
                series = self.latest_series.at(self.pipeline.clock())
                return Snapshot(self.call_stats, workers, counters, self._lost_records(), series)

            self._serve("metrics", options.prometheus, {"GET /metrics": route(snapshot)}, "/metrics")
        if options.otlp_listener.enabled:
            otlp_routes = routes(self.pipeline.ingest_blocking, self._filter, self.pipeline.clock)
            self._serve("OTLP", options.otlp_listener, otlp_routes, "")

    def _serve(self, content: str, options: ListenerOptions, table: Mapping[str, Route], path: str) -> None:
        try:
            server = HttpServer(options.host, options.port, table, is_named=options.is_named)
        except OSError as error:
            write_log(f"cannot listen for {content} on {options.host}:{options.port}: {error}; set another port")
            raise SystemExit(2) from None
        self._servers.append(server)
        write_log(f"{content} http://{options.host}:{server.port}{path}")

    def _lost_records(self) -> dict[str, int]:
        """Return how many records were lost, by kind."""
        exported = {} if self._exporter is None else self._exporter.dropped
        not_exported = {f"exported_{kind}": count for kind, count in exported.items()}
        return {"spans": self.pipeline.dropped, **self.pipeline.lost, **not_exported}

    def close(self, seconds: float) -> None:
        """Stop the servers and export what is queued, within `seconds`."""
        for server in self._servers:
            server.close()
        if self._exporter is not None:
            self._exporter.close(min(seconds or EXPORT_CLOSE_TIMEOUT, EXPORT_CLOSE_TIMEOUT))


def _feed_config(options: Options) -> dict[str, Any]:
    return {
        "spans": True,
        "logs": options.logs_enabled,
        "live": options.live,
        "payloads": options.payload_bytes,
        "sampling": options.sampling.for_engine(),
    }


def load_modules(options: Options) -> None:
    """Import what these options need and others do not: the HTTP client of alerts, OpenTelemetry's exporters."""
    if options.alerts:
        import_module("stdlib_workers.observability.actions")
    if options.export.spans or options.export.metrics:
        with suppress(ImportError):  # told when the exporter is made
            for name in ("trace_exporter", "metric_exporter"):
                import_module(f"opentelemetry.exporter.otlp.proto.http.{name}")


async def _do_nothing(rule: AlertRule, value: float, now: int) -> None:
    """Stand for the actions of a project without alerts."""


def write_log(text: str) -> None:
    """Write a line to the worker's log."""
    sys.stderr.write(f"observability: {text}\n")
