"""The worker without an engine: what it registers, which batches it takes, and the small diagnostic functions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from iii import InvocationError
from iii.version import VERSION
from iii.worker.context.invocation import CURRENT, InvocationContext
from stdlib_workers.observability.config.options import options_from
from stdlib_workers.observability.functions.diagnostics import baggage_from
from stdlib_workers.observability.functions.engine_stats import values_from
from stdlib_workers.observability.records.call_stats import CallStats
from stdlib_workers.observability.service import INGEST_FUNCTION, Service
from tests.support.observed import MS, NOW, archive, log, span, trace_id

QUIET: dict[str, Any] = {"prometheus": False, "logs_console_output": False}
IDS = {
    *(f"engine::traces::{name}" for name in ("list", "tree", "group_by", "clear")),
    *(f"engine::log::{name}" for name in ("trace", "debug", "info", "warn", "error")),
    *("engine::logs::list", "engine::logs::clear", "engine::metrics::list", "engine::rollups::list"),
    *("engine::alerts::list", "engine::alerts::evaluate", "engine::sampling::rules", "engine::health::check"),
    *("engine::baggage::get", "engine::baggage::set", "engine::baggage::get_all"),
    *(INGEST_FUNCTION, "observability::on-workers-changed"),
}


class Registrar:
    """Stands for the Worker: keeps what is registered, answers what the statistics ask."""

    def __init__(self) -> None:
        self.functions: dict[str, Any] = {}
        self.types: list[str] = []
        self.bindings: dict[str, dict[str, Any]] = {}
        self.closers: list[Any] = []

    def register_function(self, function_id: str, handler: Any, **_: Any) -> None:
        self.functions[function_id] = handler

    def register_trigger_type(self, declaration: dict[str, Any], provider: Any) -> None:
        self.types.append(declaration["id"])

    def register_trigger(self, binding: dict[str, Any]) -> None:
        self.bindings[binding["type"]] = binding

    def before_stop(self, closer: Any) -> None:
        self.closers.append(closer)

    def trigger(self, request: dict[str, Any]) -> Any:
        raise InvocationError("timeout", "no engine")

    async def trigger_async(self, request: Any, payload: Any = None) -> Any:
        raise InvocationError("timeout", "no engine")


@contextmanager
def serving(**config: Any) -> Iterator[tuple[Registrar, Service]]:
    worker: Any = Registrar()
    with archive() as kept:
        service = Service(worker, kept, options_from({**QUIET, **config}, {}))
        service.register()
        try:
            yield worker, service
        finally:
            service.close(1)
            service._background.stop()


def call(worker: Registrar, function_id: str, payload: Any = None, **fields: Any) -> Any:
    found = worker.functions[function_id](payload, **fields)
    return asyncio.run(found) if asyncio.iscoroutine(found) else found


def ingest(worker: Registrar, batch: Any) -> None:
    call(worker, INGEST_FUNCTION, batch, metadata=worker.bindings["telemetry"]["metadata"])


def test_everything_of_the_contract_is_registered_and_the_telemetry_is_bound() -> None:
    with serving(sampling_ratio=0.5, live_spans=False, logs_enabled=False, payload_bytes=10) as (worker, _):
        assert set(worker.functions) == IDS
        assert worker.types == ["log", "trace"]
        assert worker.bindings["telemetry"]["function_id"] == INGEST_FUNCTION
        assert worker.bindings["telemetry"]["config"] == {
            "spans": True,
            "logs": False,
            "live": False,
            "payloads": 10,
            "sampling": {"default": 0.5, "rules": [], "parent_based": False, "max_traces_per_second": None},
        }
        assert "engine::workers-available" in worker.bindings


def test_a_worker_that_is_off_asks_for_nothing_and_still_answers() -> None:
    with serving(enabled=False) as (worker, _):
        assert worker.bindings == {}
        assert call(worker, "engine::traces::list")["total"] == 0


def test_what_is_off_is_disabled_in_the_health() -> None:
    with serving(enabled=False) as (worker, _):
        components = call(worker, "engine::health::check")["components"]
        assert {part["status"] for part in components.values()} == {"disabled"}
    with serving(metrics_enabled=False) as (worker, _):
        assert call(worker, "engine::health::check")["components"]["metrics"]["status"] == "disabled"


def otlp_logs(text: str) -> list[str]:
    record = {"body": {"stringValue": text}, "severityNumber": 9}
    return ["LOGS", json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})]


def test_the_ratio_is_for_the_log_functions_only_and_off_is_for_all() -> None:
    batch = {"logs": [log("line")], "otlp": [otlp_logs("remote")]}
    with serving(logs_sampling_ratio=0) as (worker, _):
        call(worker, "engine::log::info", {"message": "not chosen"})
        ingest(worker, batch)
        bodies = {row["body"] for row in call(worker, "engine::logs::list")["logs"]}
        assert bodies == {"line", "remote"}
    with serving(logs_enabled=False) as (worker, _):
        call(worker, "engine::log::info", {"message": "off"})
        ingest(worker, batch)
        assert call(worker, "engine::logs::list")["total"] == 0


def test_running_spans_are_kept_unless_that_is_off() -> None:
    for live, kept in ((True, 1), (False, 0)):
        with serving(live_spans=live) as (worker, _):
            ingest(worker, {"spans": [span(1, pending=True)]})
            assert call(worker, "engine::traces::list")["total"] == kept


def test_batches_are_taken_from_the_engine_only() -> None:
    with serving() as (worker, _):
        for metadata in (None, {}, {"feed": "guess"}):
            with pytest.raises(InvocationError) as caught:
                call(worker, INGEST_FUNCTION, {"spans": [span()]}, metadata=metadata)
            assert caught.value.code == "FORBIDDEN"
        ingest(worker, {"spans": [span()], "logs": [log("fed")], "otlp": [], "dropped": {}, "time_unix_nano": NOW})
        assert call(worker, "engine::traces::list")["spans"][0]["trace_id"] == trace_id(1)
        assert call(worker, "engine::logs::list")["logs"][0]["body"] == "fed"
        with pytest.raises(InvocationError) as caught:
            ingest(worker, [])
        assert caught.value.code == "deserialization_error"


def test_what_was_lost_on_the_way_is_counted() -> None:
    with serving() as (worker, service):
        ingest(worker, {"dropped": {"spans": 3, "logs": 2, "otlp": 1}, "otlp": ["x"], "calls": {"total": 8}})
        ingest(worker, {"dropped": {"spans": 1}})
        storage = call(worker, "engine::traces::list")["storage"]
        assert (storage["known_dropped_spans"], storage["completeness"]) == (4, "partial")
        assert service._lost_records() == {"spans": 4, "logs": 2, "otlp": 1, "malformed": 1}
        assert call(worker, "engine::metrics::list")["engine_metrics"]["invocations"]["total"] == 8


def test_a_batch_of_nothing_that_fits_is_taken() -> None:
    with serving() as (worker, _):
        ingest(worker, {"spans": [1, {}, {"trace_id": 5}], "logs": "x", "otlp": None, "dropped": None, "calls": []})
        assert call(worker, "engine::traces::list")["total"] == 0


def test_workers_that_come_and_go_are_counted() -> None:
    with serving() as (worker, _):
        metadata = worker.bindings["engine::workers-available"]["metadata"]
        for id, event in (
            *(("a", "worker_connected"), ("b", "worker_connected")),
            *(("a", "worker_disconnected"), ("b", "worker_metadata_updated")),
        ):
            payload = {"event": event, "worker_id": id}
            call(worker, "observability::on-workers-changed", payload, metadata=metadata)
        with pytest.raises(InvocationError, match="takes what the engine sends only"):
            call(worker, "observability::on-workers-changed", {"event": "worker_connected", "worker_id": "c"})
        workers = call(worker, "engine::metrics::list")["engine_metrics"]["workers"]
        assert (workers["spawns"], workers["deaths"]) == (2, 1)


def test_health() -> None:
    with serving(logs_enabled=False, exporter="otlp", endpoint="http://127.0.0.1:9") as (worker, service):
        answer = call(worker, "engine::health::check")
        assert answer["status"] == "healthy"
        assert {name: part["status"] for name, part in answer["components"].items()} == {
            "otel": "healthy",
            "metrics": "healthy",
            "logs": "disabled",
            "spans": "healthy",
        }
        assert answer["components"]["otel"]["details"] == "exporting to http://127.0.0.1:9"
        assert (answer["timestamp"] > 0, answer["version"]) == (True, VERSION)
        service.pipeline.last_error = "the disk is full"
        worse = call(worker, "engine::health::check")
        assert (worse["status"], worse["components"]["spans"]["details"]) == ("degraded", "the disk is full")
        assert call(worker, "engine::traces::list")["storage"]["archive"] == "degraded"


def test_sampling_rules_are_echoed() -> None:
    rules = [{"operation": "a::*", "service": None, "rate": 0.5}]
    with serving(sampling={"default": 0.1, "rules": rules}, logs_sampling_ratio=0.25) as (worker, _):
        answer = call(worker, "engine::sampling::rules")
    assert answer["traces"] == {"default_ratio": 0.1, "rules": rules, "parent_based": True}
    assert answer["logs"] == {"sampling_ratio": 0.25}
    assert answer["timestamp"] > 0


def test_baggage_is_read_and_not_set() -> None:
    with serving() as (worker, _):
        assert call(worker, "engine::baggage::get", {"key": "a"}) == {"value": None}
        assert call(worker, "engine::baggage::get_all") == {"baggage": {}}
        answer = call(worker, "engine::baggage::set", {"key": "a", "value": "b"})
        assert answer["success"] is True
        assert "does not propagate" in answer["note"]
        with pytest.raises(InvocationError):
            call(worker, "engine::baggage::get", {})
        message = {"function_id": "engine::baggage::get", "baggage": "a=b,c=d%20e"}
        running = CURRENT.set(InvocationContext(message))
        try:
            assert call(worker, "engine::baggage::get", {"key": "c"}) == {"value": "d e"}
            assert call(worker, "engine::baggage::get_all") == {"baggage": {"a": "b", "c": "d e"}}
        finally:
            CURRENT.reset(running)


@pytest.mark.parametrize(
    ("header", "entries"),
    [
        (None, {}),
        ("", {}),
        ("a=b", {"a": "b"}),
        ("a=b;p=1 , c = d%20e,bad,=x", {"a": "b", "c": "d e"}),
    ],
)
def test_a_baggage_header(header: str | None, entries: dict[str, str]) -> None:
    assert baggage_from(header) == entries


def test_the_engines_counts_go_into_the_rollups() -> None:
    call_stats = CallStats()
    call_stats.take_counts({"total": 5, "error": 1})
    rows = [{"metrics": {"memory_rss": 100, "cpu_percent": 1.5}}, {"metrics": None}]
    found = {(value.name, value.value) for value in values_from(call_stats, {}, rows, NOW)}
    assert {("iii.invocations.total", 5), ("iii.invocations.error", 1), ("iii.workers.active", 0)} <= found
    assert {("iii.worker.memory.rss", 100), ("iii.worker.cpu.percent", 1.5)} <= found
    assert all(value.time == NOW for value in values_from(call_stats, {}, rows, NOW))
    counted = {"iii.invocations.total": 3, "iii.invocations.error": 2}
    later = {value.name: value for value in values_from(call_stats, counted, rows, NOW)}
    # Counters by what has come since, also when the count began anew; gauges as they are.
    assert (later["iii.invocations.total"].value, later["iii.invocations.total"].last) == (2, 5)
    assert (later["iii.invocations.error"].value, later["iii.invocations.error"].last) == (1, 1)
    assert later["iii.workers.active"].last is None


def test_alerts_are_listed_and_evaluated() -> None:
    rule = {"name": "busy", "metric": "iii.invocations.total", "threshold": 1, "operator": ">="}
    with serving(alerts=[rule, {**rule, "name": "off", "enabled": False}]) as (worker, _):
        ingest(worker, {"calls": {"total": 4}})
        answer = call(worker, "engine::alerts::evaluate")
        assert answer["timestamp"] > 0
        assert (answer["evaluated"], [event["name"] for event in answer["triggered_alerts"]]) == (1, ["busy"])
        again = call(worker, "engine::alerts::evaluate")
        assert "triggered_alerts" not in again
        listed = call(worker, "engine::alerts::list")
        assert (listed["firing_count"], len(listed["rules"])) == (1, 2)
        assert listed["timestamp"] * MS > 0
