"""What leaves for a collector, parsed by OpenTelemetry's own messages; and that nothing waits for one that is away."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from stdlib_workers.observability.config.options import Export
from stdlib_workers.observability.export.otlp import MAX_QUEUED, Exporter, exporter_from, headers_from
from stdlib_workers.observability.ingest.batches import Batch, IngestFilter, batch_from_telemetry
from tests.support.collector import collector
from tests.support.observed import MS, NOW, log, metric, metrics_request, span, span_id, trace_id

RESOURCE = {"service.name": "iii", "service.namespace": "eu"}


def batch(*spans: dict[str, Any], logs: Any = (), metrics: Any = ()) -> Batch:
    frames = [["MTRC", json.dumps(metrics_request(*metrics))]]
    return batch_from_telemetry({"spans": list(spans), "logs": list(logs), "otlp": frames}, IngestFilter(), NOW)


def exporter(address: str, **kinds: bool) -> Exporter:
    made = exporter_from(Export(address, **kinds, interval=0.05), RESOURCE, {"OTEL_EXPORTER_OTLP_HEADERS": "x-a=b"})
    assert made is not None
    return made


def test_spans_arrive_as_they_were() -> None:
    with collector() as (received, address):
        made = exporter(address, spans=True)
        made.on_batch(
            batch(
                span(
                    1,
                    parent=9,
                    start=2,
                    end=5,
                    status="error",
                    status_description="no such order",
                    attributes={"function_id": "shop::buy", "n": 5, "span.kind": "server", "password": "hunter22"},
                    events=[{"name": "retry", "timestamp_unix_nano": NOW, "attributes": [["attempt", "2"]]}],
                    links=[{"trace_id": trace_id(7), "span_id": span_id(8), "trace_state": None, "attributes": []}],
                    instrumentation_scope_name="lib",
                    instrumentation_scope_version="1.2",
                ),
                span(2, pending=True),
                {**span(3), "trace_id": "not hexadecimal"},
            )
        )
        received.wait(received.spans)
        made.close()
    (request,) = received.of("/v1/traces")
    resource = {item.key: item.value.string_value for item in request.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "math"
    assert resource["service.namespace"] == "eu"
    scope = request.resource_spans[0].scope_spans[0].scope
    assert (scope.name, scope.version) == ("lib", "1.2")
    (found,) = received.spans()
    assert (found.trace_id.hex(), found.span_id.hex(), found.parent_span_id.hex()) == (
        trace_id(1),
        span_id(1),
        span_id(9),
    )
    assert (found.name, found.start_time_unix_nano, found.end_time_unix_nano) == (
        "call math::add",
        NOW + 2 * MS,
        NOW + 5 * MS,
    )
    assert (found.kind, found.status.code, found.status.message) == (2, 2, "no such order")
    attributes = {item.key: item.value.string_value for item in found.attributes}
    assert (attributes["n"], attributes["password"]) == ("5", "[REDACTED]")
    assert (found.events[0].name, found.events[0].attributes[0].value.string_value) == ("retry", "2")
    assert found.links[0].trace_id.hex() == trace_id(7)


def test_metrics_of_every_kind_arrive() -> None:
    histogram = {
        "name": "took",
        "histogram": {
            "dataPoints": [
                {"timeUnixNano": "5", "count": "3", "sum": 6.0, "bucketCounts": ["1", "2"], "explicitBounds": [1.0]}
            ]
        },
    }
    with collector() as (received, address):
        made = exporter(address, metrics=True)
        made.on_batch(
            batch(
                metrics=[metric("c", 2, labels={"k": "v"}), metric("g", 1.5, "gauge"), metric("u", -1, "u"), histogram]
            )
        )
        received.wait(lambda: received.of("/v1/metrics"))
        made.close()
    (request,) = received.of("/v1/metrics")
    metrics = {one.name: one for one in request.resource_metrics[0].scope_metrics[0].metrics}
    assert (metrics["c"].sum.is_monotonic, metrics["c"].sum.data_points[0].as_double) == (True, 2.0)
    assert metrics["c"].sum.data_points[0].attributes[0].value.string_value == "v"
    assert (metrics["u"].sum.is_monotonic, metrics["g"].gauge.data_points[0].as_double) == (False, 1.5)
    assert list(metrics["took"].histogram.data_points[0].bucket_counts) == [1, 2]


def test_logs_leave_as_json() -> None:
    with collector() as (received, address):
        made = exporter(address, logs=True)
        record = log("hi", trace_id=trace_id(1), attributes={"n": 5, "f": 0.5, "b": True, "o": {"a": 1}})
        made.on_batch(batch(logs=[record]))
        received.wait(lambda: received.of("/v1/logs"))
        made.close()
    (request,) = received.of("/v1/logs")
    (scope,) = request["resourceLogs"][0]["scopeLogs"]
    (found,) = scope["logRecords"]
    assert (found["body"], found["timeUnixNano"], found["traceId"]) == ({"stringValue": "hi"}, str(NOW), trace_id(1))
    assert {item["key"]: item["value"] for item in found["attributes"]} == {
        "n": {"intValue": "5"},
        "f": {"doubleValue": 0.5},
        "b": {"boolValue": True},
        "o": {"stringValue": '{"a":1}'},
    }
    assert "spanId" not in found
    assert received.headers[0]["x-a"] == "b"


def test_logs_leave_in_batches_of_the_size_asked_for() -> None:
    with collector() as (received, address):
        made = exporter_from(Export(address, logs=True, batch=2, interval=30), {}, {})
        assert made is not None
        made.on_batch(batch(logs=[log(str(number)) for number in range(5)]))
        received.wait(lambda: len(received.of("/v1/logs")) == 3)
        made.close()
    sizes = [len(request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]) for request in received.of("/v1/logs")]
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("kind", ["spans", "metrics", "logs"])
def test_a_collector_that_refuses_loses_the_batch_and_it_is_counted(kind: str) -> None:
    with collector() as (received, address):
        received.status = 400
        made = exporter(address, **{kind: True})
        made.on_batch(batch(span(1), logs=[log()], metrics=[metric()]))
        received.wait(lambda: received.requests)
        made.close()
    assert made.dropped[kind] == 1


class Stuck:
    """A collector that never answers."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.taken = 0
        self.entered = threading.Event()

    def send(self, rows: list[Any]) -> bool:
        self.entered.set()
        is_taken = self.gate.wait(20)
        self.taken += len(rows) * is_taken
        return is_taken

    def close(self) -> None:
        """Nothing to close."""


def test_a_collector_that_hangs_holds_up_nobody_and_what_is_too_much_is_counted() -> None:
    sink = Stuck()
    made = Exporter({"logs": sink}, Export(logs=True, batch=10, interval=0.01))
    made.on_batch(batch(logs=[log() for _ in range(10)]))
    assert sink.entered.wait(20)
    many = batch(logs=[log()])._replace(logs=batch(logs=[log()]).logs * (MAX_QUEUED + 7))
    made.on_batch(many)
    assert made.dropped["logs"] == 7
    sink.gate.set()
    made.close(20)
    assert sink.taken == MAX_QUEUED + 10


def test_nothing_to_export_makes_no_exporter() -> None:
    assert exporter_from(Export(), {}, {}) is None


def test_headers_of_the_environment() -> None:
    assert headers_from({"OTEL_EXPORTER_OTLP_HEADERS": "a=b, c = d=e ,bad"}) == {"a": "b", "c": "d=e"}
    both = {"OTEL_EXPORTER_OTLP_HEADERS": "a=b", "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "l=m"}
    assert headers_from(both) == {"l": "m"}
    assert headers_from({}) == {}
