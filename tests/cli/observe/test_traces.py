"""`iii trace`, `iii traces`, `iii metrics` and `iii replay`, as real processes, and the waterfall by itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cli.observe.metrics import rows_from
from cli.text.waterfall import PLAIN, milliseconds, waterfall
from tests.support.command import Iii
from tests.support.fake_engine import FakeEngine, Refused

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER = "4bf92fff77b34da6a3ce929d0e0e4736"
NOW = 1_800_000_000_000_000_000
MS = 1_000_000
STORAGE = {"archive": "healthy"}


def span(
    id: str = "a1", parent: str | None = None, start: float = 0, took: float = 10, **fields: Any
) -> dict[str, Any]:
    """Return a span as the worker shows it; `start` and `took` in milliseconds."""
    attributes = fields.pop("attributes", {"iii.function.id": "shop::buy"})
    return {
        "trace_id": TRACE,
        "span_id": id,
        "parent_span_id": parent,
        "name": "call shop::buy",
        "start_time_unix_nano": NOW + int(start * MS),
        "end_time_unix_nano": NOW + int((start + took) * MS),
        "status": "ok",
        "attributes": [list(pair) for pair in attributes.items()],
        "service_name": "shop",
        "events": [],
        "links": [],
        **fields,
    }


def recorded(payload: Any, **attributes: str) -> list[dict[str, Any]]:
    pairs = {"iii.payload.json": json.dumps(payload), **attributes}
    return [{"name": "iii.invocation.input", "timestamp_unix_nano": NOW, "attributes": list(map(list, pairs.items()))}]


def serve(engine: FakeEngine, *rows: dict[str, Any], roots: Any = None) -> list[dict[str, Any]]:
    """Let the engine have these spans; return the queries it gets."""
    asked: list[dict[str, Any]] = []

    def list_spans(query: dict[str, Any]) -> dict[str, Any]:
        asked.append(query)
        found = [row for row in rows if row["status"] == query.get("status", row["status"])]
        return {"spans": found, "total": len(found), "offset": 0, "limit": 100, "storage": STORAGE}

    engine.functions["engine::traces::list"] = list_spans
    engine.functions["engine::traces::tree"] = lambda query: {"roots": roots or [], "storage": STORAGE, "asked": query}
    return asked


TREE = [
    {
        **span("a1", took=40, name="call web::order", service_name="web"),
        "children": [
            {**span("b1", "a1", 2, 10), "children": [{**span("c1", "b1", 4, 4), "children": []}]},
            {
                **span("b2", "a1", 20, 20, status="error", status_description="no\nstock"),
                "attributes": [["error.code", "sold_out"], ["iii.attempt", "2"]],
                "children": [],
            },
        ],
    }
]


def test_the_waterfall() -> None:
    assert waterfall(TREE, 80, PLAIN) == [
        f"trace {TRACE}  4 spans  2 services  40.0 ms  1 error",
        "call web::order     web    40.0 ms  " + "#" * 44,
        "|-call shop::buy    shop   10.0 ms  " + " " * 2 + "#" * 11,
        "| `-call shop::buy  shop    4.0 ms  " + " " * 4 + "#" * 4,
        "`-call shop::buy    shop   20.0 ms  " + " " * 22 + "#" * 22,
        "    ! sold_out: no",
        "    attempt 2",
    ]


def test_the_waterfall_shows_what_runs_and_nothing_that_a_terminal_obeys() -> None:
    lines = waterfall([{**span(name="x\x1b[2J\u202ey", took=0), "end_time_unix_nano": 0, "pending": True}], 60, PLAIN)
    assert lines[1].startswith("x\\x1b[2J\\u202ey")
    assert "running" in lines[1]
    assert lines[1].endswith("~")


def test_the_waterfall_of_spans_whose_levels_were_cut_uses_their_parents() -> None:
    flat = [{**span("a"), "children": [{**span("b", "a", 1), "children": []}, {**span("c", "b", 2), "children": []}]}]
    assert [line.index("call") for line in waterfall(flat, 80, PLAIN)[1:]] == [0, 2, 4]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0.0 ms"), (99.94 * MS, "99.9 ms"), (150 * MS, "150 ms"), (1200 * MS, "1.20 s"), (75_000 * MS, "75 s")],
)
def test_durations(nanoseconds: float, text: str) -> None:
    assert milliseconds(nanoseconds) == text


def test_trace_by_its_whole_id_by_its_beginning_and_the_newest(engine: FakeEngine, iii: Iii) -> None:
    asked = serve(engine, span(), roots=TREE)
    for words in ((TRACE,), (TRACE.upper(),), ("4bf92",), ()):
        done = iii("trace", *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].startswith(f"trace {TRACE}  4 spans")
    assert [query["limit"] for query in asked] == [1000, 1]


def test_trace_as_json_with_its_logs(engine: FakeEngine, iii: Iii) -> None:
    serve(engine, span(), roots=TREE)
    record = {"timestamp_unix_nano": NOW, "severity_text": "INFO", "service_name": "web", "body": "said \x07"}
    engine.functions["engine::logs::list"] = lambda query: {"logs": [record], "total": 1}
    found = json.loads(iii("trace", TRACE, "--json", "--logs").stdout)
    assert (found["roots"], found["logs"]) == (TREE, [record])
    assert iii("trace", TRACE, "--logs").stdout.splitlines()[-1].endswith("INFO  web  said \\x07")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("4bf",), "too short"),
        (("4bf92f",), "begins 2 traces"),
        (("ffff",), "there is no trace `ffff`"),
        (("f" * 32,), "there is no trace"),
    ],
)
def test_traces_that_are_not_there(engine: FakeEngine, iii: Iii, words: tuple[str, ...], text: str) -> None:
    serve(engine, span(), {**span(), "trace_id": OTHER})
    done = iii("trace", *words)
    assert done.returncode == 2
    assert text in done.stderr


def test_without_the_worker_the_way_to_it_is_said(engine: FakeEngine, iii: Iii) -> None:
    done = iii("traces")
    assert done.returncode == 2
    assert "iii add observability" in done.stderr


def test_traces_newest_first(engine: FakeEngine, iii: Iii) -> None:
    asked = serve(engine, span(), span(pending=True, status="unset"))
    header, first, second = iii("traces").stdout.splitlines()
    assert header.split() == ["STARTED", "TOOK", "STATUS", "NAME", "SERVICE", "TRACE"]
    assert first.split()[2:] == ["10.0", "ms", "ok", "call", "shop::buy", "shop", TRACE]
    assert second.split()[2] == "running"
    order = {"sort_by": "start_time", "sort_order": "desc", "include_internal": False, "limit": 20}
    inside = {"trace_ids": [TRACE, TRACE], "status": "error", "search_all_spans": True, "limit": 1000}
    assert asked == [order, inside]


def test_traces_slow_and_failed(engine: FakeEngine, iii: Iii) -> None:
    asked = serve(engine, span(status="error"))
    done = iii("traces", "--slow", "--failed", "--name", "buy", "--since", "10m", "--limit", "3", "--all", "--json")
    assert json.loads(done.stdout)["total"] == 1
    inside, rows = asked
    start = inside.pop("start_time")
    order = {"sort_by": "duration", "sort_order": "desc", "include_internal": True}
    assert inside == {**order, "status": "error", "name": "buy", "search_all_spans": True, "limit": 1000}
    assert rows == {**order, "start_time": rows["start_time"], "trace_ids": [TRACE], "limit": 3}
    assert rows["start_time"] == start > NOW // MS // 2


@pytest.mark.parametrize(
    ("failed", "is_failure"),
    [
        ({"attributes": {"iii.caller.function": "a::b"}}, True),
        ({"parent": "1", "attributes": {"iii.trigger.type": "state"}}, True),
        ({"parent": "1", "attributes": {"iii.caller.function": "a::b", "iii.action": "void"}}, True),
        ({"parent": "1", "attributes": {"iii.caller.function": "a::b"}}, False),
    ],
)
def test_a_trace_has_failed_when_something_failed_that_no_caller_could_catch(
    engine: FakeEngine, iii: Iii, failed: dict[str, Any], is_failure: bool
) -> None:
    root, inner = span(), span(status="error", **failed)

    def list_spans(query: dict[str, Any]) -> dict[str, Any]:
        is_inside = query.get("search_all_spans")
        rows = [inner] if is_inside else [root] if query.get("trace_ids") != [] else []
        return {"spans": rows, "total": len(rows), "offset": 0, "limit": 100, "storage": STORAGE}

    engine.functions["engine::traces::list"] = list_spans
    for options in ((), ("--failed",)):
        statuses = [row["status"] for row in json.loads(iii("traces", "--json", *options).stdout)["spans"]]
        assert statuses == (["error"] if is_failure else [] if options else ["ok"])


METRICS = {
    "engine_metrics": {
        "invocations": {"total": 3, "success": 1, "error": 2, "deferred": 0, "by_function": {"a::b": 1, "c::d": 2}},
        "workers": {"spawns": 2, "deaths": 1, "active": 1},
        "performance": {f"{name}_duration_ms": 1.5 for name in ("avg", "p50", "p95", "p99", "min", "max")},
    },
    "sdk_metrics": [
        {
            "name": "orders",
            "service_name": "shop",
            "metric_type": "counter",
            "unit": "1",
            "data_points": [{"value": value, "attributes": {"k": "v"}, "timestamp_unix_nano": NOW}],
        }
        for value in (1, 2)
    ],
    "timestamp": 1,
}


def test_a_series_that_has_ended_and_a_histogram_without_a_sum_have_their_rows() -> None:
    attributes = {"attributes": {}, "timestamp_unix_nano": NOW}
    points = ([attributes], [{"count": 4, "sum": None, **attributes}])
    metrics = [
        {"name": name, "service_name": "shop", "metric_type": "histogram", "data_points": part}
        for name, part in zip("ab", points, strict=True)
    ]
    assert [row[3] for row in rows_from(metrics)] == ["ended", "4 of 0 on average"]


def test_metrics(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["engine::metrics::list"] = lambda query: METRICS
    lines = iii("metrics").stdout.splitlines()
    assert lines[0] == "calls    3: 1 ok, 2 failed, 0 not waited for"
    assert lines[1].startswith("took     p50 1.5 ms, p95 1.5 ms")
    assert lines[2] == "workers  1: 2 came, 1 went"
    assert lines[4:7] == ["FUNCTION  CALLS", "c::d          2", "a::b          1"]
    assert lines[-1].split() == ["orders", "shop", "counter", "2", "1", "k=v"]
    assert json.loads(iii("metrics", "--json").stdout) == METRICS
    assert iii("metrics", "orders").stdout.splitlines()[0].startswith("METRIC")


def test_a_metric_that_nobody_reports(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["engine::metrics::list"] = lambda query: {**METRICS, "sdk_metrics": []}
    assert iii("metrics", "nope").stdout == "no metric nope was reported lately\n"


def replayed(engine: FakeEngine) -> Any:
    """The payload of the call that was made."""
    return engine.calls[-1]["data"]


def test_replay_makes_the_first_recorded_call_of_the_project_again(engine: FakeEngine, iii: Iii) -> None:
    internal = {"iii.function.id": "engine::workers::list"}
    serve(
        engine,
        span("a0", attributes=internal, events=recorded({})),
        span("a1"),
        span("a2", events=recorded({"item": 5})),
        span("a3", events=recorded({"item": 6})),
    )
    engine.functions["shop::buy"] = lambda payload: {"bought": payload["item"]}
    done = iii("replay", TRACE)
    assert (json.loads(done.stdout), done.stderr) == ({"bought": 5}, "calling shop::buy again\n")
    assert json.loads(iii("replay", TRACE, "--span", "a3", "--json").stdout) == {"bought": 6}
    assert json.loads(iii("replay", TRACE, "--data", '{"item": 9}').stdout) == {"bought": 9}
    assert replayed(engine) == {"item": 9}


def test_replay_edited(engine: FakeEngine, iii: Iii, tmp_path: Path) -> None:
    serve(engine, span(events=recorded({"item": 5, "password": "[REDACTED]"})))
    engine.functions["shop::buy"] = lambda payload: payload
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/.REDACTED./opensesame/; s/5/7/" "$1"\n')
    editor.chmod(0o700)
    assert json.loads(iii("replay", TRACE, "--edit", EDITOR=str(editor)).stdout) == {
        "item": 7,
        "password": "opensesame",
    }
    editor.write_text("#!/bin/sh\nexit 0\n")
    untouched = iii("replay", TRACE, "--edit", EDITOR=str(editor))
    assert (untouched.returncode, "nothing was changed" in untouched.stderr) == (2, True)
    assert len(engine.calls) == 1


@pytest.mark.parametrize(
    ("events", "words", "text"),
    [
        (recorded({"password": "[REDACTED]"}), (), "fill them in with --edit"),
        (recorded({}, **{"iii.payload.truncated": "true"}), (), "too large to be recorded"),
        ([], (), "no call whose payload was recorded"),
        ([], ("--span", "a1"), "too large to be recorded"),
        (recorded({}), ("--span", "ffff"), "no call with the span"),
        (recorded({}), ("--data", "{"), "--data is not JSON"),
    ],
)
def test_calls_that_are_not_made_again(engine: FakeEngine, iii: Iii, events: Any, words: Any, text: str) -> None:
    serve(engine, span(events=events))
    done = iii("replay", TRACE, *words)
    assert done.returncode == 2
    assert text in done.stderr
    assert engine.calls == []


def test_a_replay_that_fails_exits_with_the_error_of_the_function(engine: FakeEngine, iii: Iii) -> None:
    def refuse(_: Any) -> Any:
        raise Refused("sold_out", "none left")

    serve(engine, span(events=recorded(None)))
    engine.functions["shop::buy"] = refuse
    done = iii("replay", TRACE)
    assert done.returncode == 1
    assert "none left" in done.stderr
    assert replayed(engine) is None


def test_logs_of_a_trace(folder: Path, iii: Iii) -> None:
    (folder / "iii.toml").write_text('[workers.web]\nrun = "web.py"\n')
    logs = folder / ".iii" / "logs"
    logs.mkdir(parents=True)
    rows = [
        {"time": "2026-01-01T00:00:00.000+00:00", "worker": "web", "stream": "stderr", "level": "info", "text": text}
        for text in (json.dumps({"message": "in", "trace_id": TRACE}), "outside")
    ]
    (logs / "web.log").write_text("".join(json.dumps(row) + os.linesep for row in rows))
    found = iii("logs", "--trace", TRACE, "--json").stdout.splitlines()
    assert [json.loads(line)["text"] for line in found] == [rows[0]["text"]]
