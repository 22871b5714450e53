"""OTLP's JSON in every dialect: numbers as strings, ids of zeros, null names, and what is no OTLP at all."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdlib_workers.observability.ingest.batches import Batch, IngestFilter, batch_from_telemetry
from stdlib_workers.observability.records.otlp_json import (
    float_from,
    id_from,
    integer_from,
    logs_from,
    metrics_from,
    spans_from,
    value_from,
)
from stdlib_workers.observability.records.spans import MAX_INTEGER
from tests.support.observed import NOW, archive, metric, metrics_request

TRACE, SPAN = "5B8EFFF798038103D269B633813FC60C", "EEE19B7EC3C1B174"


def traces(**fields: Any) -> dict[str, Any]:
    one = {"traceId": TRACE, "spanId": SPAN, "name": "work", "startTimeUnixNano": "1", "endTimeUnixNano": 2, **fields}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    scope = {"name": "lib", "version": "1.2"}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [one]}]}]}


def one_span(**fields: Any) -> dict[str, Any]:
    return spans_from(traces(**fields))[0]


def test_a_span_with_everything() -> None:
    found = one_span(
        parentSpanId="EEE19B7EC3C1B173",
        kind=2,
        status={"code": 2, "message": "no"},
        attributes=[
            {"key": "a", "value": {"intValue": "5"}},
            {"key": "b", "value": {"arrayValue": {"values": [{"stringValue": "x"}, {"boolValue": True}]}}},
            {"key": "c", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"doubleValue": 0.5}}]}}},
        ],
        events=[{"name": "e", "timeUnixNano": "7", "attributes": [{"key": "n", "value": {"intValue": 1}}]}],
        links=[{"traceId": TRACE, "spanId": SPAN, "traceState": "s"}],
        flags=1,
        traceState="x=y",
    )
    assert found == {
        "trace_id": TRACE.lower(),
        "span_id": SPAN.lower(),
        "parent_span_id": "eee19b7ec3c1b173",
        "name": "work",
        "start_time_unix_nano": 1,
        "end_time_unix_nano": 2,
        "status": "error",
        "status_description": "no",
        "attributes": {"a": 5, "b": ["x", True], "c": {"k": 0.5}, "span.kind": "server"},
        "service_name": "shop",
        "events": [{"name": "e", "timestamp_unix_nano": 7, "attributes": [["n", 1]]}],
        "links": [{"trace_id": TRACE.lower(), "span_id": SPAN.lower(), "trace_state": "s", "attributes": []}],
        "flags": 1,
        "trace_state": "x=y",
        "instrumentation_scope_name": "lib",
        "instrumentation_scope_version": "1.2",
    }


@pytest.mark.parametrize("parent", [None, "", "0000000000000000"])
def test_an_empty_or_zero_parent_is_none(parent: str | None) -> None:
    assert one_span(parentSpanId=parent)["parent_span_id"] is None


def test_a_null_name_is_tolerated_and_end_zero_is_a_snapshot() -> None:
    found = one_span(name=None, endTimeUnixNano="0")
    assert (found["name"], found["pending"]) == ("", True)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({}, "unset"),
        ({"code": "1"}, "ok"),
        ({"code": "STATUS_CODE_ERROR"}, "error"),
        (None, "unset"),
        ({"code": 9}, "unset"),
    ],
)
def test_statuses(status: Any, word: str) -> None:
    assert one_span(status=status)["status"] == word


def test_the_service_is_unknown_without_a_resource() -> None:
    request = traces()
    del request["resourceSpans"][0]["resource"]
    assert spans_from(request)[0]["service_name"] == "unknown"


def test_logs_with_zero_ids_and_the_severity_by_number() -> None:
    record = {
        "timeUnixNano": "5",
        "severityNumber": 14,
        "body": {"stringValue": "x"},
        "traceId": "0" * 32,
        "spanId": "",
    }
    request = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    found = logs_from(request)[0]
    assert (found["severity_text"], found["trace_id"], found["span_id"], found["body"]) == ("WARN", None, None, "x")


def test_metrics_of_every_kind() -> None:
    histogram = {
        "name": "took",
        "histogram": {
            "dataPoints": [
                {"count": "3", "sum": 6.0, "bucketCounts": ["1", "2"], "explicitBounds": [1.0], "min": 1, "max": 3}
            ]
        },
    }
    up_down = metric("jobs", -2, kind="updowncounter")
    request = metrics_request(metric("a", 1.5), metric("g", 2, kind="gauge"), up_down, histogram, {"name": "summary"})
    refused: Counter[str] = Counter()
    found = {one["name"]: one for one in metrics_from(request, refused)}
    assert refused == {"no data": 1}
    assert {name: one["metric_type"] for name, one in found.items()} == {
        "a": "counter",
        "g": "gauge",
        "jobs": "updowncounter",
        "took": "histogram",
    }
    assert found["a"]["data_points"] == [{"value": 1.5, "attributes": {}, "timestamp_unix_nano": NOW}]
    assert found["took"]["data_points"][0] == {
        "count": 3,
        "sum": 6.0,
        "bucket_counts": [1, 2],
        "explicit_bounds": [1.0],
        "min": 1.0,
        "max": 3.0,
        "attributes": {},
        "timestamp_unix_nano": 0,
    }
    assert found["a"]["service_name"] == "shop"


def gauge(**point: Any) -> dict[str, Any]:
    return {"name": "g", "gauge": {"dataPoints": [point]}}


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (gauge(asDouble="NaN"), "no finite number"),
        (gauge(asDouble="x"), "no finite number"),
        (gauge(), "no finite number"),
        (gauge(asInt="1.5.2"), "no finite number"),
        ({"name": "h", "histogram": {"dataPoints": [{"count": 1, "bucketCounts": [1], "explicitBounds": [1]}]}}, "fit"),
        ({"name": "h", "histogram": {"dataPoints": [{"count": 1, "sum": "NaN"}]}}, "no finite number"),
        ({"name": "e", "exponentialHistogram": {"dataPoints": [{"count": 1}]}}, "exponentialHistogram data"),
        ({"name": "s", "summary": {"dataPoints": [{"count": 1}]}}, "summary data"),
        ({"name": "n"}, "no data"),
        (gauge(asDouble=1) | {"name": ""}, "no name"),
    ],
)
def test_data_points_that_have_no_place_are_refused_and_counted(wrong: dict[str, Any], reason: str) -> None:
    request = metrics_request(metric("kept", 1), wrong)
    batch = batch_from_telemetry({"otlp": [["MTRC", json.dumps(request)]]}, IngestFilter(), NOW)
    assert batch.malformed == 1
    assert batch.reasons.startswith("1 with ")
    assert reason in batch.reasons
    points = [point for row in batch.metrics for point in json.loads(row.record)["data_points"]]
    assert [point["value"] for point in points] == [1]


def test_temporality_resource_and_start_are_kept() -> None:
    one = metric("m", 2)
    one["sum"]["aggregationTemporality"] = 1
    one["sum"]["dataPoints"][0]["startTimeUnixNano"] = "7"
    request = metrics_request(one, gauge(flags=1))
    request["resourceMetrics"][0]["resource"]["attributes"] += [{"key": "host.name", "value": {"stringValue": "h1"}}]
    changed, ended = metrics_from(request, Counter())
    assert (changed["aggregation_temporality"], changed["resource"]) == ("delta", {"host.name": "h1"})
    assert changed["data_points"][0]["start_time_unix_nano"] == 7
    assert ended["data_points"] == [{"attributes": {}, "timestamp_unix_nano": 0}]
    assert "aggregation_temporality" not in ended


def test_spans_without_ids_are_refused_and_counted() -> None:
    zeros = {"traceId": "0" * 32, "spanId": "0" * 16}
    frames = [["OTLP", json.dumps(traces(**ids))] for ids in ({}, zeros, {"spanId": None})]
    batch = batch_from_telemetry({"otlp": frames}, IngestFilter(), NOW)
    assert (len(batch.spans), batch.malformed) == (1, 2)
    assert batch.reasons == "2 with ids that are missing, all zeros or too long"


def test_integers_inside_64_bits_and_nothing_else() -> None:
    assert [integer_from(value) for value in ("7", 7, 7.9, None, "x", [], str(2**70), float("inf"))] == [
        *(7, 7, 7, 0, 0, 0, MAX_INTEGER, 0)
    ]
    assert [float_from(value) for value in ("1.5", 2, None, "nan", "inf", {})] == [1.5, 2.0, None, None, None, None]


def test_ids() -> None:
    assert [id_from(value) for value in ("AB", "0", "", None, 5)] == ["ab", None, None, None, None]


def test_a_value_that_nests_without_end_is_cut() -> None:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(100):
        value = {"arrayValue": {"values": [value]}}
    assert "x" not in str(value_from(value))


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *("resourceSpans", "scopeSpans", "spans", "resource", "attributes", "traceId", "spanId", "status"),
                    *("resourceMetrics", "scopeMetrics", "metrics", "sum", "gauge", "histogram", "dataPoints", "key"),
                    *("resourceLogs", "scopeLogs", "logRecords", "body", "value", "intValue", "arrayValue", "values"),
                    *("events", "links", "count", "bucketCounts", "explicitBounds", "startTimeUnixNano", "name"),
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=30,
)


@given(junk)
def test_no_request_of_any_shape_raises(request: Any) -> None:
    for read in (spans_from, lambda request: metrics_from(request, Counter()), logs_from):
        assert isinstance(read(request), list)


@pytest.mark.parametrize("frame", [["OTLP", "{"], ["OTLP", "[]"], ["WHAT", "{}"], "x", ["OTLP"], ["MTRC", None]])
def test_a_frame_that_is_none_is_counted_and_left_out(frame: Any) -> None:
    batch = batch_from_telemetry({"otlp": [frame, ["OTLP", "{}"]]}, IngestFilter(), 1)
    assert (batch.malformed, batch.spans) == (1, [])


def test_what_is_not_accepted_stays_outside() -> None:
    request = traces(endTimeUnixNano="0")
    batch = {"otlp": [["OTLP", json.dumps(request)]], "logs": [{"body": "x"}]}
    assert len(batch_from_telemetry(batch, IngestFilter(), 1).spans) == 1
    strict = batch_from_telemetry(batch, IngestFilter(live=False, logs=False), 1)
    assert (strict.spans, strict.logs) == ([], [])


fields = st.sampled_from(
    [
        *("trace_id", "span_id", "parent_span_id", "name", "status", "attributes", "events", "links", "pending"),
        *("start_time_unix_nano", "end_time_unix_nano", "service_name", "body", "severity_number", "severity_text"),
        *("resource", "timestamp_unix_nano", "flags", "status_description", "instrumentation_scope_name"),
    ]
)
plain = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4))
odd = st.one_of(plain, st.lists(plain, max_size=2), st.lists(st.lists(plain, max_size=2), max_size=2))
records = st.lists(st.one_of(odd, st.dictionaries(fields, odd, max_size=8)), max_size=4)


@given(records, records)
def test_no_batch_of_any_shape_raises_and_what_is_kept_can_be_stored(spans: Any, logs: Any) -> None:
    known = [{**one, "trace_id": "t", "span_id": "s"} for one in spans if isinstance(one, dict)]
    batch = batch_from_telemetry({"spans": [*spans, *known], "logs": logs}, IngestFilter(), 1)
    assert len(batch.spans) >= len(known)
    with archive() as kept:
        kept.write(Batch(batch.spans, batch.logs)).result()
