"""Logs: what `engine::log::*` stores, every filter of `engine::logs::list`, and the shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.observability.config.options import Options
from stdlib_workers.observability.functions.logs import LogFunctions
from stdlib_workers.observability.records.logs import severity_name
from stdlib_workers.observability.store import log_table
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.log_table import log_query_from
from tests.support.observed import MS, NOW, Bench, archive, bench, keep, log

LEVELS = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17}


def functions(made: Bench, **options: Any) -> LogFunctions:
    return LogFunctions(made.archive, made.pipeline, Options(logs_console=False, **options))


@pytest.mark.parametrize(("level", "number"), LEVELS.items())
def test_a_record_of_each_level(level: str, number: int) -> None:
    with bench() as made:
        logs = functions(made, resource={"service.name": "shop"})
        payload = {"message": "hi \x1b[31mred\x1b[0m", "data": {"a": 1}, "trace_id": "t", "span_id": "s"}
        assert made.run(logs.writer(level)({**payload, "service_name": "web"})) is None
        answer = made.run(logs.list(None))
    assert answer["logs"] == [
        {
            "timestamp_unix_nano": NOW,
            "observed_timestamp_unix_nano": NOW,
            "severity_number": number,
            "severity_text": level.upper(),
            "body": "hi red",
            "attributes": {"a": 1},
            "trace_id": "t",
            "span_id": "s",
            "resource": {"service.name": "shop"},
            "service_name": "web",
            "instrumentation_scope_name": "iii",
            "instrumentation_scope_version": None,
        }
    ]
    assert (answer["total"], answer["timestamp"]) == (1, NOW // MS)
    assert len(answer["query"]) == 8
    assert set(answer["query"].values()) == {None}


@pytest.mark.parametrize("data", [None, "text", [1], 5])
def test_data_that_is_no_object_makes_no_attributes(data: Any) -> None:
    with bench() as made:
        logs = functions(made)
        made.run(logs.writer("info")({"message": "m", "data": data}))
        (row,) = made.run(logs.list({}))["logs"]
    assert (row["attributes"], row["service_name"], row["trace_id"]) == ({}, "unknown", None)


def test_logs_that_are_off_or_not_chosen_are_dropped_silently() -> None:
    with bench() as made:
        for options in ({"logs_enabled": False}, {"logs_ratio": 0.0}):
            logs = functions(made, **options)
            assert made.run(logs.writer("info")({"message": "m"})) is None
        assert made.run(functions(made).list({}))["total"] == 0


def test_a_message_is_required() -> None:
    with bench() as made, pytest.raises(InvocationError) as caught:
        made.run(functions(made).writer("info")({"data": 1}))
    assert caught.value.code == "deserialization_error"


def test_a_record_is_shown_in_the_workers_own_log_unless_that_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    with bench() as made:
        shown = LogFunctions(made.archive, made.pipeline, Options())
        made.run(shown.writer("warn")({"message": "seen", "data": {"password": "hunter22"}}))
        made.run(functions(made).writer("warn")({"message": "unseen"}))
    record = json.loads(capsys.readouterr().err)
    assert (record["level"], record["message"], record["data"]) == ("warn", "seen", {"password": "[REDACTED]"})


@pytest.fixture(scope="module")
def kept() -> Any:
    with archive() as made:
        keep(
            made,
            logs=[
                log("a", at=1, trace_id="t1", span_id="s1"),
                log("b", at=3, severity_number=17, severity_text="error", trace_id="t1", span_id="s2"),
                log("c", at=2, severity_number=13, severity_text="Warn"),
                log("d", at=3, severity_number=21, severity_text=None),
            ],
        )
        yield made


@pytest.mark.parametrize(
    ("payload", "bodies"),
    [
        (None, "dbca"),
        ({"start_time": NOW // MS + 2}, "dbc"),
        ({"end_time": NOW // MS + 2}, "ca"),
        ({"start_time": NOW // MS + 3, "end_time": NOW // MS + 3}, "db"),
        ({"start_time": NOW // MS + 4}, ""),
        ({"trace_id": "t1"}, "ba"),
        ({"span_id": "s2"}, "b"),
        ({"severity_min": 13}, "dbc"),
        ({"severity_min": 18}, "d"),
        ({"severity_text": "WARN"}, "c"),
        ({"severity_text": "error"}, "b"),
        ({"severity_text": "err"}, ""),
        ({"offset": 1, "limit": 2}, "bc"),
        ({"limit": 0}, ""),
        ({"start_time": 2**63 - 1}, ""),
    ],
)
def test_filters(kept: Archive, payload: Any, bodies: str) -> None:
    query = log_query_from(payload)
    rows, total = kept.run(lambda connection: log_table.find(connection, query)).result()
    assert "".join(row.body for row in rows) == bodies
    assert total == (len(bodies) if not payload or not {"offset", "limit"} & set(payload) else 4)


def test_the_query_is_echoed_with_all_eight_filters() -> None:
    assert log_query_from({"limit": 5, "trace_id": "t"})._asdict() == {
        "start_time": None,
        "end_time": None,
        "trace_id": "t",
        "span_id": None,
        "severity_min": None,
        "severity_text": None,
        "offset": None,
        "limit": 5,
    }


@pytest.mark.parametrize("payload", [{"limit": "1"}, {"severity_min": -1}, {"trace_id": 5}, []])
def test_fields_that_do_not_fit(payload: Any) -> None:
    with pytest.raises(InvocationError) as caught:
        log_query_from(payload)
    assert caught.value.code == "deserialization_error"


def test_clear_forgets_and_says_so() -> None:
    with bench() as made:
        keep(made.archive, logs=[log()])
        assert made.run(functions(made).clear({})) == {"success": True}
        assert made.run(functions(made).list({}))["total"] == 0


def test_an_answer_stops_before_it_is_too_large_for_the_wire() -> None:
    with archive() as kept:
        for number in range(10):
            keep(kept, logs=[log("x" * 1_000_000, at=number)])
        rows, total = kept.run(lambda connection: log_table.find(connection, log_query_from({}))).result()
    assert total == 10
    assert len(rows) == 5


def test_a_record_without_a_time_gets_that_of_its_arrival_and_zero_ids_are_none() -> None:
    with archive() as kept:
        keep(kept, logs=[{"body": {"nested": 1}, "trace_id": "0" * 32, "span_id": ""}], now=NOW)
        rows, _ = kept.run(lambda connection: log_table.find(connection, log_query_from({}))).result()
    assert (rows[0].time, rows[0].body, rows[0].trace, rows[0].level) == (NOW, '{"nested":1}', None, "INFO")


def test_names_of_severities() -> None:
    assert [severity_name(number) for number in (1, 4, 5, 9, 16, 17, 24, 0)] == [
        *("TRACE", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "INFO")
    ]
