"""How what workers and the engine say looks as a log record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iii.engine.supervision.reports import AllReady, Became, Exited, Failed, LogLine, Notice, Reloaded, Report
from iii.engine.supervision.run import ExitReason, Run
from iii.engine.telemetry.log_records import MAX_BODY, log_record
from iii.protocol.codec import encode_value

RUN = Run("math", 2, 3)
KEYS = {
    *("timestamp_unix_nano", "observed_timestamp_unix_nano", "severity_number", "severity_text", "body"),
    *("attributes", "trace_id", "span_id", "resource", "service_name"),
    *("instrumentation_scope_name", "instrumentation_scope_version"),
}
WHERE = {"iii.stream": "stderr", "iii.worker": "math", "iii.worker.instance": 2, "iii.worker.generation": 3}


def told(report: Report, now: float = 1_000.25) -> dict[str, Any]:
    form = log_record(report, now)
    assert form is not None
    record: dict[str, Any] = json.loads(encode_value(form))
    assert set(record) == KEYS
    return record


def said(**fields: Any) -> LogLine:
    return LogLine(RUN, 1_000.25, json.dumps({"time": 1_000.125, "level": "info", "message": "m", **fields}))


def test_a_line_is_information_from_its_worker() -> None:
    record = told(LogLine(RUN, 1_000.25, "\x1b[31mred\x1b[0m and \x07 bell"))
    assert record["body"] == "red and \\x07 bell"
    assert (record["severity_text"], record["severity_number"], record["service_name"]) == ("INFO", 9, "math")
    assert record["timestamp_unix_nano"] == record["observed_timestamp_unix_nano"] == 1_000_250_000_000
    assert record["attributes"] == WHERE
    assert record["resource"] == {"service.name": "math"}


def test_a_record_of_the_logger_keeps_its_level_its_data_and_its_trace() -> None:
    ids = {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7"}
    record = told(said(level="error", data={"n": 1}, function_id="m::f", invocation_id="i", service="shop", **ids))
    assert (record["body"], record["severity_number"], record["service_name"]) == ("m", 17, "shop")
    assert (record["trace_id"], record["span_id"]) == (ids["trace_id"], ids["span_id"])
    assert record["attributes"] == {**WHERE, "n": 1, "iii.function.id": "m::f", "iii.invocation.id": "i"}
    assert (record["timestamp_unix_nano"], record["observed_timestamp_unix_nano"]) == (
        1_000_125_000_000,
        1_000_250_000_000,
    )


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        ({"level": "nonsense"}, "severity_text", "INFO"),
        ({"level": "warn"}, "severity_number", 13),
        ({"trace_id": "0" * 32, "span_id": "x"}, "trace_id", None),
        ({"time": 1e12}, "timestamp_unix_nano", 1_000_250_000_000),
        ({"data": [1]}, "attributes", {**WHERE, "data": [1]}),
        ({"message": 5}, "body", json.dumps({"time": 1_000.125, "level": "info", "message": 5})),
        ({"message": "x" * 100_000}, "body", "x" * MAX_BODY),
    ],
)
def test_odd_records_are_still_records(fields: dict[str, Any], key: str, value: Any) -> None:
    assert told(said(**fields))[key] == value


def test_json_that_cannot_be_read_is_a_line() -> None:
    for text in ('{"time":', '{"time": NaN}', '{"time": 1' + "[" * 5_000):
        assert told(LogLine(RUN, 1.0, text))["body"] == text


@pytest.mark.parametrize(
    ("report", "level", "words"),
    [
        (Became(RUN, 0.5), "INFO", "math is ready after 0.500 s"),
        (Reloaded(RUN, 0.5), "INFO", "math reloaded in 0.500 s"),
        (Exited(RUN, ExitReason("killed"), 0.1, 1, 5), "WARN", "math: killed, restart 1 in 0.1 s"),
        (Failed(RUN, ExitReason("killed")), "ERROR", "math: killed; it is not started again"),
        (Notice("the disk is full", level="error", details=("twice",)), "ERROR", "the disk is full twice"),
        (Notice("careful"), "WARN", "careful"),
    ],
)
def test_what_the_engine_tells_is_its_own_record(report: Report, level: str, words: str) -> None:
    record = told(report)
    assert (record["severity_text"], record["body"], record["service_name"]) == (level, words, "iii")
    assert record["attributes"]["iii.report"] == type(report).__name__


def test_that_all_is_well_is_no_record() -> None:
    assert log_record(AllReady(1.0), 1.0) is None
