"""The triggers `log` and `trace`, and the live stream: which functions are called for which records."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.observability.export.live_stream import ALL, MAX_SPANS, ROWS, TRACE, LiveStream, messages_from
from stdlib_workers.observability.ingest.batches import Batch, IngestFilter, batch_from_telemetry
from stdlib_workers.observability.ingest.triggers import (
    Triggers,
    functions_in,
    log_subscription_from,
    trace_subscription_from,
    traces_for,
)
from tests.support.observed import NOW, log, span, span_id, trace_id
from tests.support.stand_ins import Callee, binding, until


def batch(*spans: dict[str, Any], logs: Any = ()) -> Batch:
    return batch_from_telemetry({"spans": list(spans), "logs": list(logs)}, IngestFilter(), NOW)


class Tasks:
    """Starts coroutines on the running loop."""

    def __init__(self) -> None:
        self.tasks: set[Any] = set()

    def start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def firing(callee: Callee) -> Triggers:
    return Triggers(callee, Tasks().start)


async def test_a_log_trigger_gets_every_record_of_its_level_with_all_twelve_keys() -> None:
    callee = Callee(w__all=lambda _: None, w__warn=lambda _: None)
    made = firing(callee)
    await made.logs.register_trigger(binding("w::all", None, "1", metadata={"m": 1}, namespace="other"))
    await made.logs.register_trigger(binding("w::warn", {"level": "WARN"}, "2"))
    made.on_batch(batch(logs=[log("a"), log("b", severity_number=13, severity_text="warn")]))
    await until(lambda: len(callee.requests) == 3)
    assert {payload["body"] for payload in callee.payloads("w::all")} == {"a", "b"}
    (warned,) = callee.payloads("w::warn")
    assert warned == {**log("b", severity_number=13, severity_text="WARN")}
    assert len(warned) == 12
    first = callee.requests[0]
    assert (first["metadata"], first.get("namespace")) == ({"m": 1}, None)


async def test_a_log_trigger_is_not_told_of_what_it_has_caused_and_passes_the_causes_on() -> None:
    callee = Callee(w__all=lambda _: None, w__other=lambda _: None)
    made = firing(callee)
    await made.logs.register_trigger(binding("w::all", None, "1"))
    await made.logs.register_trigger(binding("w::other", None, "2"))
    causes = "0123abcd.1!00000001w::all!00000002a%2Cb"
    made.on_batch(batch(logs=[log("caused", attributes={"iii.causes": causes}), log("by nothing")]))
    await until(lambda: len(callee.requests) == 3)
    assert [payload["body"] for payload in callee.payloads("w::all")] == ["by nothing"]
    traces = [request["trace"] for request in callee.requests if request["function_id"] == "w::other"]
    assert traces == [{"baggage": f"iii.causes={causes}"}, {"baggage": "iii.causes=.0"}]
    assert functions_in(causes) == {"w::all", "a,b"}
    assert functions_in(".0") == functions_in(None) == set()


async def test_a_log_trigger_fires_for_records_of_otlp_too() -> None:
    callee = Callee(w__all=lambda _: None)
    made = firing(callee)
    await made.logs.register_trigger(binding("w::all"))
    record = {"body": {"stringValue": "remote"}, "severityNumber": 17}
    request = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    made.on_batch(batch_from_telemetry({"otlp": [["LOGS", json.dumps(request)]]}, IngestFilter(), NOW))
    await until(lambda: callee.requests)
    (told,) = callee.payloads("w::all")
    assert (told["body"], told["severity_text"], told["service_name"], len(told)) == ("remote", "ERROR", "unknown", 12)


async def test_a_trace_trigger_has_its_metadata_and_the_default_namespace() -> None:
    callee = Callee(w__seen=lambda _: None)
    made = firing(callee)
    await made.traces.register_trigger(binding("w::seen", None, metadata={"m": 1}, namespace="other"))
    made.on_batch(batch(span(1)))
    made.close_window()
    await until(lambda: callee.requests)
    assert (callee.requests[0]["metadata"], callee.requests[0].get("namespace")) == ({"m": 1}, None)


async def test_what_a_bound_function_logs_fires_nothing() -> None:
    callee = Callee(w__all=lambda _: None)
    made = firing(callee)
    await made.logs.register_trigger(binding("w::all", {"level": "all"}))
    made.on_batch(batch(logs=[log("own", attributes={"function_id": "w::all"}), log("other")]))
    await until(lambda: callee.requests)
    assert [payload["body"] for payload in callee.payloads("w::all")] == ["other"]


async def test_a_condition_decides_and_a_failing_handler_disturbs_nobody() -> None:
    def fail(_: Any) -> None:
        raise InvocationError("invocation_failed", "no")

    callee = Callee(w__all=fail, w__if=lambda payload: payload["body"] != "a", w__b=lambda _: None)
    made = firing(callee)
    await made.logs.register_trigger(binding("w::all", {"condition_function_id": "w::if"}, "1"))
    await made.logs.register_trigger(binding("w::b", {}, "2"))
    made.on_batch(batch(logs=[log("a"), log("b")]))
    await until(lambda: len(callee.payloads("w::b")) == 2 and callee.payloads("w::all"))
    assert [payload["body"] for payload in callee.payloads("w::all")] == ["b"]


@pytest.mark.parametrize("config", [{"level": "loud"}, {"level": 5}])
def test_levels_that_there_are_not(config: Any) -> None:
    with pytest.raises(InvocationError, match="level"):
        log_subscription_from(binding("a::b", config))


def test_a_filter_that_is_no_string_is_refused() -> None:
    with pytest.raises(InvocationError) as caught:
        trace_subscription_from(binding("a::b", {"status": 1}))
    assert caught.value.code == "trigger_registration_failed"


async def test_traces_are_told_once_a_window_sorted_and_unique() -> None:
    callee = Callee(w__seen=lambda _: None)
    made = firing(callee)
    await made.traces.register_trigger(binding("w::seen", {}))
    made.on_batch(batch(span(1, trace=2), span(2, trace=1)))
    made.on_batch(batch(span(3, trace=2), span(4, trace=3)))
    assert callee.requests == []
    await until(lambda: callee.requests)
    assert callee.payloads("w::seen") == [{"trace_ids": [trace_id(1), trace_id(2), trace_id(3)]}]
    made.on_batch(batch(span(5, trace=9)))
    await until(lambda: len(callee.requests) == 2)


async def test_a_window_in_which_nothing_fits_tells_nothing() -> None:
    callee = Callee(w__seen=lambda _: None)
    made = firing(callee)
    await made.traces.register_trigger(binding("w::seen", {"status": "error"}))
    made.on_batch(batch(span(1)))
    made.close_window()
    made.on_batch(batch(span(2, trace=7, status="error")))
    made.close_window()
    await until(lambda: callee.requests)
    assert callee.payloads("w::seen") == [{"trace_ids": [trace_id(7)]}]


ROWS_OF_ALL_KINDS = batch(
    span(1, trace=1, service_name="Web", status="error"),
    span(2, trace=2),
    span(3, trace=3, attributes={"iii.function.kind": "internal"}),
    span(4, parent=1, trace=4, attributes={"iii.function.kind": "internal"}),
    span(5, trace=5, attributes={"function_id": "observability::ingest"}),
    span(6, parent=1, trace=6, attributes={"function_id": "engine::traces::list"}),
    span(7, trace=7, attributes={"function_id": "w::seen"}),
    span(8, trace=8, pending=True),
).spans


@pytest.mark.parametrize(
    ("config", "traces"),
    [
        ({}, [1, 2, 4]),
        ({"service_name": "WEB"}, [1]),
        ({"service_name": "we"}, []),
        ({"status": "OK"}, [2, 4]),
        ({"service_name": "web", "status": "ok"}, []),
    ],
)
def test_which_traces_a_binding_is_told_of(config: Any, traces: list[int]) -> None:
    subscription = trace_subscription_from(binding("w::seen", config))
    found = traces_for(subscription, ROWS_OF_ALL_KINDS, {"w::seen"})
    assert found == [trace_id(number) for number in traces]


def test_the_three_streams_of_the_live_stream() -> None:
    rows = batch(span(1, trace=1), span(2, 1, trace=1), span(3, trace=2, attributes={"function_id": "engine::x"})).spans
    found = {
        (message["stream_name"], message["group_id"]): [one["span_id"] for one in message["data"]["spans"]]
        for message in messages_from(rows)
    }
    assert found == {
        (ROWS, "all"): [span_id(1)],
        (ALL, "all"): [span_id(number) for number in (1, 2, 3)],
        (TRACE, trace_id(1)): [span_id(1), span_id(2)],
        (TRACE, trace_id(2)): [span_id(3)],
    }
    assert list(messages_from([])) == []


async def test_the_live_stream_sends_the_newest_spans_of_a_window() -> None:
    callee = Callee(stream__send=lambda _: None)
    live = LiveStream(callee, Tasks().start)
    live.on_batch(batch(*[span(number + 1, start=1) for number in range(MAX_SPANS + 5)]))
    await until(lambda: len(callee.requests) == 3)
    first = callee.requests[0]["payload"]
    assert (first["stream_name"], first["group_id"], first["type"]) == (ROWS, "all", "spans")
    assert len(first["data"]["spans"]) == MAX_SPANS
    assert first["data"]["spans"][-1]["span_id"] == span_id(MAX_SPANS + 5)


async def test_without_a_stream_worker_the_live_stream_stays_quiet_for_a_while() -> None:
    callee = Callee()
    live = LiveStream(callee, Tasks().start)
    live.on_batch(batch(span(1)))
    await until(lambda: callee.requests)
    live.on_batch(batch(span(2)))
    await live.send()
    assert len(callee.requests) == 1
