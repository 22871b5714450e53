"""Joins the parts of the worker and registers them with the engine. Called by `__main__`.

Handlers run on the SDK's loop; what follows a commit (triggers, the side feed, alerts) on the background loop; HTTP on
the listener's threads. They meet in the archive's one storage thread.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Coroutine
from typing import Any

from iii import InvocationError, TriggerInput, Worker
from stdlib_workers.events import Background
from stdlib_workers.observability.alerts.actions import Actions
from stdlib_workers.observability.alerts.evaluator import AlertEvaluator
from stdlib_workers.observability.config.options import Listener as ListenerOptions
from stdlib_workers.observability.config.options import Options
from stdlib_workers.observability.export.live_stream import LiveFeed
from stdlib_workers.observability.export.otlp import HINT, Exporter, exporter_from
from stdlib_workers.observability.functions.diagnostics import Diagnostics
from stdlib_workers.observability.functions.engine_stats import EngineStats
from stdlib_workers.observability.functions.logs import LogFunctions
from stdlib_workers.observability.functions.metrics import MetricFunctions
from stdlib_workers.observability.functions.traces import Storage, TraceFunctions
from stdlib_workers.observability.ingest.batches import Accepts, Intake, intake_from
from stdlib_workers.observability.ingest.http_server import Listener, Route
from stdlib_workers.observability.ingest.otlp_http import routes
from stdlib_workers.observability.ingest.pipeline import Pipeline
from stdlib_workers.observability.ingest.triggers import LOG, TRACE, Firing
from stdlib_workers.observability.records.call_stats import Figures
from stdlib_workers.observability.records.latest_series import Latest
from stdlib_workers.observability.records.spans import clamp
from stdlib_workers.observability.store.archive import Archive, Batch

TICK = 10.0
FEED = "observability::ingest"
WORKERS_CHANGED = "observability::on-workers-changed"


class Service:
    """Everything of one project's observability."""

    def __init__(self, worker: Worker, archive: Archive, options: Options) -> None:
        self._worker = worker
        self._archive = archive
        self._options = options
        self._background = background = Background("iii-observability")
        self._token = secrets.token_hex(16)
        self._listeners: list[Listener] = []
        self._exporter: Exporter | None = None
        self.accepts = Accepts(live=options.live, logs=options.logs_enabled)
        self.pipeline = Pipeline(archive, background)
        self.figures = Figures()
        self.latest = Latest()
        self.firing = Firing(worker, background.start)
        self.census = EngineStats(worker, self.figures)
        actions = Actions(worker, allow_private=options.allow_private)
        self.evaluator = AlertEvaluator(archive, self.figures, options.alerts, actions.act)
        self._follow()

    def _follow(self) -> None:
        followers = [self._count, self.firing.take]
        if self._options.streams:
            followers.append(LiveFeed(self._worker, self._background.start).take)
        self._exporter = self._make_exporter()
        if self._exporter is not None:
            followers.append(self._exporter.take)
        self.pipeline.followers.extend(followers)

    def _make_exporter(self) -> Exporter | None:
        try:
            return exporter_from(self._options.export, self._options.resource, os.environ)
        except ImportError:
            say(f"{HINT}; nothing is exported")
            return None

    def _count(self, intake: Intake) -> None:
        self.figures.add_spans(intake.spans)
        self.latest.add(intake.metrics)

    # Registration

    def register(self) -> None:
        """Register everything. The trigger types come first: bindings have to be there before the first batch."""
        self._worker.register_trigger_type(LOG, self.firing.logs)
        self._worker.register_trigger_type(TRACE, self.firing.traces)
        for function_id, handler in self._functions().items():
            self._worker.register_function(function_id, handler)
        self._worker.register_function(FEED, self.ingest, metadata={"internal": True})
        self._worker.register_function(WORKERS_CHANGED, self.workers_changed, metadata={"internal": True})
        if self._options.enabled:
            self._listen()
            self._bind("engine::workers-available", WORKERS_CHANGED, {})
            self._bind("telemetry", FEED, self._feed_config())
            self._start(self._tick())
            self._start(self.evaluator.watch(self.pipeline.clock))
        self._worker.before_stop(self.close)

    def _functions(self) -> dict[str, Any]:
        storage = Storage(self._archive, self.pipeline, self._options.limits.bytes)
        traces = TraceFunctions(self._archive, storage, self._options.collapse, self.pipeline.clock)
        logs = LogFunctions(self._archive, self.pipeline, self._options)
        metrics = MetricFunctions(self._archive, self.pipeline, self.figures)
        diagnostics = Diagnostics(self._options, self.pipeline)
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

    def _bind(self, kind: str, function_id: str, config: dict[str, Any]) -> None:
        binding: TriggerInput = {
            "type": kind,
            "function_id": function_id,
            "config": config,
            "metadata": {"feed": self._token},
        }
        self._worker.register_trigger(binding)

    def _feed_config(self) -> dict[str, Any]:
        return {
            "spans": True,
            "logs": self._options.logs_enabled,
            "live": self._options.live,
            "payloads": self._options.payload_bytes,
            "sampling": self._options.sampling.wanted(),
        }

    # Functions of the worker itself

    async def ingest(self, payload: Any, metadata: Any = None) -> None:
        """Take a batch of the engine's feed; answers when it is committed, which asks for the next one."""
        # Everybody can call a function. The binding's metadata comes with what it fires, and nobody else knows it.
        if metadata != {"feed": self._token}:
            raise InvocationError("FORBIDDEN", f"{FEED} takes batches of the engine's feed only")
        if not isinstance(payload, dict):
            raise InvocationError("deserialization_error", f"{FEED}: a batch is an object")
        dropped = payload.get("dropped") or {}
        intake = intake_from(payload, self.accepts, self.pipeline.clock())
        self.figures.take_counts(payload.get("calls"))
        self.pipeline.lose(clamp(dropped.get("spans")))
        lost = {kind: clamp(dropped.get(kind)) for kind in ("logs", "otlp")}
        self.pipeline.lost.update({**lost, "malformed": intake.malformed})
        await self.pipeline.take(intake)

    def workers_changed(self, payload: Any) -> None:
        """Count workers that come and go."""
        self.figures.add_event((payload or {}).get("event"))

    def alerts(self, _: Any) -> dict[str, Any]:
        """List the alerts, their rules and how they stand."""
        return self.evaluator.shape(self.pipeline.clock() // 1_000_000)

    async def evaluate(self, _: Any) -> dict[str, Any]:
        """Judge all alert rules now."""
        now = self.pipeline.clock()
        work = asyncio.run_coroutine_threadsafe(self.evaluator.evaluate(now), self._background.loop)
        events = await asyncio.wrap_future(work)
        found: dict[str, Any] = {"evaluated": self.evaluator.count, "timestamp": now // 1_000_000}
        return {**found, "triggered_alerts": events} if events else found

    # Beside the functions

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.call(self._background.start, work)

    async def _tick(self) -> None:
        while True:
            now = self.pipeline.clock()
            try:
                await self._archive.write(Batch(values=await self.census.sample(now)))
                while await self._archive.sweep(now):
                    # In portions: batches that wait are written in between.
                    continue
            except InvocationError as error:
                self.pipeline.last_error = str(error)
            await asyncio.sleep(TICK)

    def _listen(self) -> None:
        options = self._options
        if options.metrics_enabled:
            self._open("metrics", options.prometheus, self._metrics_route(), "/metrics")
        self._open("OTLP", options.otlp_listener, routes(self.pipeline.take_now, self.accepts, self.pipeline.clock), "")

    def _open(self, what: str, wanted: ListenerOptions, table: dict[str, Route] | None, path: str) -> None:
        if not wanted.enabled or table is None:
            return
        try:
            listener = Listener(wanted.host, wanted.port, table, is_named=wanted.is_named)
        except OSError as error:
            say(f"cannot listen for {what} on {wanted.host}:{wanted.port}: {error}; set another port")
            raise SystemExit(2) from None
        self._listeners.append(listener)
        say(f"{what} http://{wanted.host}:{listener.port}{path}")

    def _metrics_route(self) -> dict[str, Route] | None:
        try:
            from stdlib_workers.observability.export.prometheus import Snapshot, route  # an extra
        except ImportError:
            say("/metrics needs `pip install 'iii-engine[observability]'`")
            return None

        def take() -> Snapshot:
            census, pipeline = self.census, self.pipeline
            series = self.latest.at(pipeline.clock())
            return Snapshot(self.figures, census.workers(), census.counters(), self._dropped(), series)

        return {"GET /metrics": route(take)}

    def _dropped(self) -> dict[str, int]:
        exported = {} if self._exporter is None else self._exporter.dropped
        sent = {f"exported_{kind}": count for kind, count in exported.items()}
        return {"spans": self.pipeline.dropped, **self.pipeline.lost, **sent}

    def close(self, seconds: float) -> None:
        """Stop listening and send what still waits, within `seconds`."""
        for listener in self._listeners:
            listener.close()
        if self._exporter is not None:
            self._exporter.close(min(seconds or 5.0, 5.0))


def say(text: str) -> None:
    """Tell something in the worker's log."""
    sys.stderr.write(f"observability: {text}\n")
