"""What workers on their own connections report of their processes, and for how long it counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.engine.builtins.introspection import workers_info
from iii.engine.telemetry.metrics import MAX_FRAME, MAX_WORKERS, REPORT_TIMEOUT, WorkerMetrics
from tests.support.routing import Net


def gauge(name: str, worker: Any = "w-1", **value: Any) -> dict[str, Any]:
    attributes = [{"key": "service", "value": {"stringValue": "x"}}, {"key": "worker.id", "value": worker}]
    if isinstance(worker, str):
        attributes[1]["value"] = {"stringValue": worker}
    return {"name": name, "gauge": {"dataPoints": [{**value, "attributes": attributes}]}}


def frame(*metrics: Any) -> bytes:
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": list(metrics)}]}]}).encode()


def reported(*metrics: Any, kind: str = "MTRC") -> dict[str, Any] | None:
    worker_metrics = WorkerMetrics()
    worker_metrics.take(kind, frame(*metrics), 5.0)
    return worker_metrics.latest("w-1", 5.0)


def test_every_gauge_of_the_contract_has_its_field() -> None:
    names = {
        "memory.heap_used": "memory_heap_used",
        "memory.heap_total": "memory_heap_total",
        "memory.rss": "memory_rss",
        "memory.external": "memory_external",
        "cpu.percent": "cpu_percent",
        "cpu.user_micros": "cpu_user_micros",
        "cpu.system_micros": "cpu_system_micros",
        "event_loop.lag_ms": "event_loop_lag_ms",
        "uptime_seconds": "uptime_seconds",
    }
    metrics = [gauge(f"iii.worker.{name}", asInt=number) for number, name in enumerate(names)]
    fields = {field: number for number, field in enumerate(names.values())}
    assert reported(*metrics) == {**fields, "timestamp_ms": 5000}


@pytest.mark.parametrize(
    ("value", "found"),
    [({"asInt": 7}, 7), ({"asInt": "7"}, 7), ({"asDouble": 1.5}, 1.5), ({"asDouble": "1.5"}, 1.5)],
)
def test_numbers_may_be_strings(value: Any, found: float) -> None:
    assert reported(gauge("iii.worker.cpu.percent", **value)) == {"cpu_percent": found, "timestamp_ms": 5000}


@pytest.mark.parametrize(
    "metric",
    [
        gauge("iii.worker.cpu.percent", worker="w-2", asInt=1),
        gauge("iii.worker.cpu.percent", worker=None, asInt=1),
        gauge("iii.worker.cpu.percent"),
        gauge("iii.worker.cpu.percent", asDouble="NaN"),
        gauge("iii.worker.cpu.percent", asInt="many"),
        gauge("iii.worker.memory.vms", asInt=1),
        gauge("cpu.percent", asInt=1),
        {"name": "iii.worker.cpu.percent", "sum": {"dataPoints": [{"asInt": 1}]}},
    ],
)
def test_what_is_no_report_of_that_worker_says_nothing(metric: Any) -> None:
    assert reported(metric) is None


def test_only_frames_of_metrics_are_read_and_none_that_is_too_large() -> None:
    metric = gauge("iii.worker.cpu.percent", asInt=1)
    assert reported(metric, kind="OTLP") is None
    assert reported(metric, "x" * MAX_FRAME) is None


def test_a_report_counts_for_two_minutes_and_adds_to_the_one_before() -> None:
    worker_metrics = WorkerMetrics()
    worker_metrics.take("MTRC", frame(gauge("iii.worker.cpu.percent", asInt=1)), 0.0)
    worker_metrics.take("MTRC", frame(gauge("iii.worker.memory.rss", asInt=2)), 60.0)
    assert worker_metrics.latest("w-1", 60 + REPORT_TIMEOUT) == {
        "cpu_percent": 1,
        "memory_rss": 2,
        "timestamp_ms": 60_000,
    }
    assert worker_metrics.latest("w-1", 61 + REPORT_TIMEOUT) is None
    worker_metrics.take("MTRC", frame(gauge("iii.worker.uptime_seconds", asInt=3)), 61 + REPORT_TIMEOUT)
    assert worker_metrics.latest("w-1", 61 + REPORT_TIMEOUT) == {"uptime_seconds": 3, "timestamp_ms": 181_000}


def worker_named(name: str, net: Net, reports: WorkerMetrics, rows: Any = ()) -> Any:
    viewer = net.peer("viewer")
    found = workers_info(net.router, viewer, rows, {"name": name}, lambda id: reports.latest(id, 5.0))
    net.router.peer_table.detach(viewer)
    return found["worker"]["latest_metrics"]


def test_a_worker_is_described_by_its_own_report_unless_the_engine_measures_it() -> None:
    net, worker_metrics = Net(), WorkerMetrics()
    net.peer("w-1")
    assert worker_named("w-1", net, worker_metrics) is None
    worker_metrics.take("MTRC", frame(gauge("iii.worker.memory.rss", asInt=2)), 5.0)
    assert worker_named("w-1", net, worker_metrics) == {"memory_rss": 2, "timestamp_ms": 5000, "runtime": None}
    measured = {"name": "own", "instance": 1, "generation": 1, "metrics": {"memory_rss": 9}, "runtime": "python"}
    assert worker_named("own", net, worker_metrics, [measured]) == {"memory_rss": 9, "runtime": "python"}


def test_made_up_workers_push_out_the_oldest_only() -> None:
    worker_metrics = WorkerMetrics()
    for number in range(MAX_WORKERS + 1):
        worker_metrics.take("MTRC", frame(gauge("iii.worker.cpu.percent", worker=str(number), asInt=1)), 0.0)
    assert worker_metrics.latest("0", 0.0) is None
    assert worker_metrics.latest("1", 0.0) is not None


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["resourceMetrics", "scopeMetrics", "metrics", "gauge", "dataPoints", "attributes"]), inner
        ),
    ),
    max_leaves=8,
)


@given(json_values, st.binary(max_size=9))
def test_no_frame_of_any_shape_raises(value: Any, junk: bytes) -> None:
    worker_metrics = WorkerMetrics()
    worker_metrics.take("MTRC", json.dumps(["iii.worker.", value]).encode(), 0.0)
    worker_metrics.take("MTRC", json.dumps({"resourceMetrics": value, "": "iii.worker."}).encode(), 0.0)
    worker_metrics.take("MTRC", b"iii.worker." + junk, 0.0)
    assert worker_metrics.latest("w-1", 0.0) is None
