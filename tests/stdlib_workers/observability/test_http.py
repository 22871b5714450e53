"""The listener's manners, OTLP from OpenTelemetry's own exporters, `/metrics` read by Prometheus's own parser."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult
from prometheus_client.parser import text_string_to_metric_families

from iii import InvocationError
from stdlib_workers.observability.export.prometheus import Snapshot, name_from, route, text_of
from stdlib_workers.observability.ingest.batches import Batch, IngestFilter, batch_from_telemetry
from stdlib_workers.observability.ingest.http_server import MAX_BODY, HttpServer, Response
from stdlib_workers.observability.ingest.otlp_http import routes
from stdlib_workers.observability.records.call_stats import CallStats
from stdlib_workers.observability.records.metrics import LatestSeries
from stdlib_workers.observability.records.otel_sdk import otel_metrics, otel_span
from tests.support.observed import NOW, bench, metric, metrics_request, span, span_id, trace_id


@contextmanager
def listening(table: Any, port: int = 0, *, is_named: bool = True) -> Iterator[HttpServer]:
    made = HttpServer("127.0.0.1", port, table, is_named=is_named)
    try:
        yield made
    finally:
        made.close()


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, fields)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read()
    finally:
        connection.close()


ECHO = {
    "GET /x": lambda request: Response(200, body=b"got"),
    "POST /x": lambda request: Response(200, body=request.body),
}
FULL: list[Batch] = []


def test_paths_and_methods() -> None:
    with listening({"GET /x": ECHO["GET /x"]}) as made:
        assert ask(made.port, "GET", "/x?a=1")[::2] == (200, b"got")
        assert ask(made.port, "GET", "/y")[0] == 404
        assert ask(made.port, "POST", "/x", b"")[0] == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:{port}"}, 200),
        ({"host": "LOCALHOST:{port}"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"origin": "http://127.0.0.1:{port}"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "none"}, 200),
    ],
)
def test_only_this_machine_and_no_web_page(headers: dict[str, str], status: int) -> None:
    with listening(ECHO) as made:
        fields = {name: value.format(port=made.port) for name, value in headers.items()}
        assert ask(made.port, "GET", "/x", **fields)[0] == status


def raw(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        # A server that refuses a body need not read it.
        with suppress(ConnectionError):
            connection.sendall(text)
        found = b""
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                found += part
        return found


def test_bodies_are_bounded_however_they_are_sent() -> None:
    with listening(ECHO) as made:
        host = f"POST /x HTTP/1.1\r\nhost: 127.0.0.1:{made.port}\r\n".encode()
        chunked = b"transfer-encoding: chunked\r\n\r\n3\r\nab\n\r\n4\r\ncdef\r\n0\r\n\r\n"
        assert raw(made.port, host + b"connection: close\r\n" + chunked).endswith(b"\r\n\r\nab\ncdef")
        assert b" 413 " in raw(made.port, host + b"content-length: %d\r\n\r\n" % (MAX_BODY + 1))
        endless = b"transfer-encoding: chunked\r\n\r\n" + b"%x\r\n" % (MAX_BODY + 1) + b"x" * (MAX_BODY + 1)
        assert b" 413 " in raw(made.port, host + endless)
        twice = b"GET /x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"
        assert b" 421 " in raw(made.port, twice)


def test_packed_bodies_are_unpacked_within_bounds() -> None:
    with listening(ECHO) as made:
        assert ask(made.port, "POST", "/x", gzip.compress(b"hi"), content_encoding="gzip")[::2] == (200, b"hi")
        bomb = gzip.compress(b"\0" * (MAX_BODY + 1))
        assert len(bomb) < 100_000
        assert ask(made.port, "POST", "/x", bomb, content_encoding="gzip")[0] == 413
        assert ask(made.port, "POST", "/x", b"nothing", content_encoding="gzip")[0] == 400
        assert ask(made.port, "POST", "/x", b"", content_encoding="br")[0] == 415


def test_a_default_port_that_is_taken_moves_and_a_named_one_does_not() -> None:
    with listening(ECHO) as first:
        with listening(ECHO, first.port, is_named=False) as second:
            assert second.port > first.port
        with pytest.raises(OSError, match="in use"):
            HttpServer("127.0.0.1", first.port, ECHO, is_named=True)


def test_opentelemetrys_own_exporters_are_understood() -> None:
    """What arrives is what left: through their protobuf, our receiver, and the archive."""
    with bench() as made:
        table = routes(made.pipeline.ingest_blocking, IngestFilter(), made.pipeline.clock)
        with listening(table) as receiver:
            address = f"http://127.0.0.1:{receiver.port}"
            left = batch_from_telemetry(
                {
                    "spans": [span(1, parent=2, status="error", status_description="no", attributes={"a": "b"})],
                    "otlp": [["MTRC", json.dumps(metrics_request(metric("m", 2.5, labels={"k": "v"})))]],
                },
                IngestFilter(),
                NOW,
            )
            spans = OTLPSpanExporter(f"{address}/v1/traces")
            exported = otel_span(left.spans[0], Resource({"service.name": "math"}))
            assert exported is not None
            assert spans.export([exported]) is SpanExportResult.SUCCESS
            spans.shutdown()
            metrics = OTLPMetricExporter(f"{address}/v1/metrics")
            assert metrics.export(otel_metrics(left.metrics, {})) is MetricExportResult.SUCCESS
            metrics.shutdown()
        stored = made.archive.run(
            lambda connection: connection.execute(
                "SELECT trace, span, parent, status, attributes FROM spans"
            ).fetchall()
        ).result()
        assert stored == [(trace_id(1), span_id(1), span_id(2), "error", '[["a","b"]]')]
        names = made.archive.run(lambda c: c.execute("SELECT name, service, kind FROM metrics").fetchall()).result()
        assert names == [("m", "shop", "counter")]


@contextmanager
def receiving(take: Any) -> Iterator[int]:
    with listening(routes(take, IngestFilter(), lambda: NOW)) as made:
        yield made.port


def test_json_is_taken_and_answered_as_json() -> None:
    taken: list[Batch] = []
    record = {"body": {"stringValue": "hi"}, "severityNumber": 9}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
    with receiving(taken.append) as port:
        answer = ask(port, "POST", "/v1/logs", body, content_type="application/json; charset=utf-8")
    assert answer == (200, "application/json", b"{}")
    assert taken[0].logs[0].body == "hi"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"\xff\xff", "application/x-protobuf", 400),
        (b"", "application/x-protobuf", 200),
        (b"{}", "text/plain", 415),
        (b"[]", "application/json", 200),
    ],
)
def test_bodies_that_are_not_what_they_say(body: bytes, kind: str, status: int) -> None:
    with receiving(FULL.append) as port:
        assert ask(port, "POST", "/v1/traces", body, content_type=kind)[0] == status


def chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 10):
        yield body[start : start + 10]


def test_a_request_in_chunks_and_gzip_is_taken() -> None:
    """As the exporters of JavaScript send it."""
    taken: list[Batch] = []
    body = gzip.compress(json.dumps(metrics_request(metric("m", 5))).encode())
    with receiving(taken.append) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        fields = {"content-type": "application/json", "content-encoding": "gzip"}
        connection.request("POST", "/v1/metrics", chunks(body), fields, encode_chunked=True)
        assert connection.getresponse().read() == b"{}"
        connection.close()
    assert [row.name for row in taken[0].metrics] == ["m"]


@pytest.mark.parametrize("path", ["traces", "metrics"])
def test_what_was_refused_is_told_in_the_encoding_of_the_request(path: str) -> None:
    point: dict[str, Any] = {"attributes": []}
    metrics = {"name": "g", "gauge": {"dataPoints": [point, point]}}
    request = {
        "traces": {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "no ids"}, {"name": "none either"}]}]}]},
        "metrics": metrics_request(metrics, metric("m", 1)),
    }[path]
    kind = {"traces": ExportTraceServiceResponse, "metrics": ExportMetricsServiceResponse}[path]
    binary = {"traces": ExportTraceServiceRequest, "metrics": ExportMetricsServiceRequest}[path]
    with receiving(FULL.append) as port:
        told = ask(port, "POST", f"/v1/{path}", json.dumps(request).encode(), content_type="application/json")[2]
        body = ParseDict(request, binary()).SerializeToString()
        as_binary = ask(port, "POST", f"/v1/{path}", body, content_type="application/x-protobuf")[2]
    partial = json.loads(told)["partialSuccess"]
    assert partial[{"traces": "rejectedSpans", "metrics": "rejectedDataPoints"}[path]] == "2"
    assert partial["errorMessage"].startswith("2 with ")
    assert MessageToDict(kind.FromString(as_binary))["partialSuccess"] == partial


def test_a_full_storage_asks_the_sender_to_try_again() -> None:
    def full(_: Batch) -> None:
        raise InvocationError("storage_full", "the disk is full")

    with receiving(full) as port:
        assert ask(port, "POST", "/v1/traces", b"{}", content_type="application/json")[0] == 503


# Prometheus


def snapshot() -> Snapshot:
    call_stats = CallStats()
    call_stats.add_spans(
        batch_from_telemetry({"spans": [span(1, start=0, end=3), span(2, start=0, end=40)]}, IngestFilter(), NOW).spans
    )
    call_stats.take_counts({"total": 7, "success": 4, "error": 2, "deferred": 1, "by_function": {'we"ird\\::\n': 7}})
    call_stats.active = 3
    latest = LatestSeries()
    histogram = {
        "name": "http.took",
        "histogram": {"dataPoints": [{"count": "3", "sum": 6.0, "bucketCounts": ["1", "2"], "explicitBounds": [1.0]}]},
    }
    metrics = [
        metric("orders.total", 5, labels={"shop.id": "a", "le": "x"}),
        metric("1st", 2, kind="gauge"),
        metric("iii_workers", 99, kind="gauge"),
        metric("orders", 1, kind="gauge"),
        histogram,
    ]
    latest.add(
        batch_from_telemetry({"otlp": [["MTRC", json.dumps(metrics_request(*metrics))]]}, IngestFilter(), NOW).metrics
    )
    workers = [
        {"name": "math", "instance": 1, "restarts": 2, "metrics": {"memory_rss": 1000, "cpu_user_micros": 2_500_000}},
        {"name": "far", "instance": None, "metrics": None},
    ]
    return Snapshot(call_stats, workers, {"void_dropped": 4}, {"spans": 11, "logs": 2}, list(latest.at(NOW)))


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Everything on the page, as Prometheus's own parser reads it."""
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_reads_the_page() -> None:
    with listening({"GET /metrics": route(snapshot)}) as made:
        status, kind, text = ask(made.port, "GET", "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    found = samples(text)
    math = (("instance", "1"), ("worker", "math"))
    expected = {
        ("iii_invocations_total", (("outcome", "success"),)): 4,
        ("iii_invocations_total", (("outcome", "error"),)): 2,
        ("iii_invocations_total", (("outcome", "deferred"),)): 1,
        ("iii_function_invocations_total", (("function", 'we"ird\\::\n'),)): 7,
        ("iii_invocation_duration_seconds_bucket", (("function", "math::add"), ("le", "0.005"))): 1,
        ("iii_invocation_duration_seconds_bucket", (("function", "math::add"), ("le", "+Inf"))): 2,
        ("iii_invocation_duration_seconds_count", (("function", "math::add"),)): 2,
        ("iii_workers", ()): 3,
        ("iii_worker_restarts_total", math): 2,
        ("iii_worker_memory_rss_bytes", math): 1000,
        ("iii_worker_cpu_user_seconds_total", math): 2.5,
        ("iii_dropped_total", (("kind", "spans"),)): 11,
        ("iii_engine_events_total", (("cause", "void_dropped"),)): 4,
        ("_1st", (("service", "shop"),)): 2,
        ("orders_total", (("le", "x"), ("service", "shop"), ("shop_id", "a"))): 5,
        ("http_took_bucket", (("le", "1.0"), ("service", "shop"))): 1,
        ("http_took_bucket", (("le", "+Inf"), ("service", "shop"))): 3,
        ("http_took_sum", (("service", "shop"),)): 6,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert found["iii_invocation_duration_seconds_sum", (("function", "math::add"),)] == pytest.approx(0.043)
    assert ("orders", (("service", "shop"),)) not in found


def page_of(*requests: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return what these requests leave on the page."""
    latest = LatestSeries()
    for request in requests:
        latest.add(batch_from_telemetry({"otlp": [["MTRC", json.dumps(request)]]}, IngestFilter(), NOW).metrics)
    text = text_of(Snapshot(CallStats(), [], {}, {}, list(latest.at(NOW))))
    series = [line.rsplit(" ", 1)[0] for line in text.decode().splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    return {key: value for key, value in samples(text).items() if not key[0].startswith("iii_")}


def with_resource(request: dict[str, Any], **attributes: str) -> dict[str, Any]:
    found = [{"key": name.replace("_", "."), "value": {"stringValue": text}} for name, text in attributes.items()]
    request["resourceMetrics"][0]["resource"]["attributes"] += found
    return request


def test_each_instance_has_its_series_and_its_resource_stands_in_target_info() -> None:
    page = page_of(
        with_resource(metrics_request(metric("jobs", 100)), service_instance_id="one", host_name="h1"),
        with_resource(metrics_request(metric("jobs", 5)), service_instance_id="two"),
        with_resource(metrics_request(metric("jobs", 7)), host_name="h1", process_pid="12"),
    )
    jobs = {dict(labels)["instance"]: value for (name, labels), value in page.items() if name == "jobs_total"}
    assert jobs == {"one": 100, "two": 5, "h1:12": 7}
    one = {"service": "shop", "instance": "one", "host_name": "h1", "service_instance_id": "one"}
    assert page["target_info", tuple(sorted(one.items()))] == 1


def test_names_that_become_one_are_added_up_and_kinds_that_collide_get_names_of_their_own() -> None:
    page = page_of(
        metrics_request(metric("calls", 1, labels={"http.method": "GET"})),
        metrics_request(metric("calls", 2, labels={"http_method": "GET"})),
        metrics_request(metric("calls", 3, labels={"http.method": "GET", "http_method": "PUT", "service": "x"})),
        metrics_request(metric("calls", 4, kind="gauge"), metric("calls_total", 5, kind="gauge")),
        metrics_request(metric("temperature", 6, kind="gauge", labels={"a.b": ""})),
        metrics_request(metric("temperature", 7, kind="gauge", labels={"a_b": ""})),
    )
    service = ("service", "shop")
    assert page == {
        ("calls_total", (("http_method", "GET"), service)): 3,
        ("calls_total", (("exported_service", "x"), ("http_method", "GET;PUT"), service)): 3,
        ("calls_gauge", (service,)): 4,
        ("calls_total_gauge", (service,)): 5,
        ("temperature", (("a_b", ""), service)): 7,
    }


def test_the_scope_is_a_label_and_a_sum_that_nobody_reports_is_not_made_up() -> None:
    request = metrics_request({"name": "took", "histogram": {"dataPoints": [{"count": 2}]}})
    request["resourceMetrics"][0]["scopeMetrics"][0]["scope"] = {"name": "lib"}
    labels = (("otel_scope_name", "lib"), ("service", "shop"))
    assert page_of(request) == {("took_bucket", (("le", "+Inf"), *labels)): 2, ("took_count", labels): 2}


def test_every_family_has_one_type_and_stands_once() -> None:
    lines = text_of(snapshot()).decode().splitlines()
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(named) == len(set(named))


def test_names_that_prometheus_takes() -> None:
    assert [name_from(name) for name in ("a.b-c", "9x", "", "ok:yes")] == ["a_b_c", "_9x", "_", "ok:yes"]
