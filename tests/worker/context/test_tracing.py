"""Spans that a worker opens itself: where they hang, what they tell, and what hangs below them."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager

import pytest

from iii import Logger
from iii.worker.api.requests import TriggerRequest
from iii.worker.calls.call_table import prepare
from iii.worker.context.invocation import CURRENT, InvocationContext
from iii.worker.context.tracing import Tracing, current_trace

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Recorder(Tracing):
    """A worker of which only the spans are there."""

    def __init__(self):
        self.sent = []

    def _send(self, message):
        assert message["type"] == "telemetry"
        self.sent += message["spans"]


@contextmanager
def invocation(flags="01", **fields):
    trace = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-{flags}"} if flags else {}
    token = CURRENT.set(InvocationContext({"function_id": "m::f", "invocation_id": "i1", **trace, **fields}))
    try:
        yield
    finally:
        CURRENT.reset(token)


def test_a_span_tells_its_name_time_attributes_and_events():
    worker = Recorder()
    with invocation(), worker.span("resize", {"pixels": 5}) as span:
        span.set("kind", object)
        span.event("half", {"done": 1})
    (sent,) = worker.sent
    assert (sent["name"], sent["trace_id"], sent["parent_span_id"], sent["flags"]) == ("resize", TRACE_ID, SPAN_ID, 1)
    assert sent["attributes"] == {"pixels": 5, "kind": str(object)}
    assert [(event["name"], event["attributes"]) for event in sent["events"]] == [("half", [["done", "1"]])]
    assert sent["end_time_unix_nano"] >= sent["start_time_unix_nano"] > 1_700_000_000 * 10**9
    assert sent["status"] == "ok"


def test_an_exception_passes_and_makes_it_an_error():
    worker = Recorder()
    with pytest.raises(ValueError, match="no"), invocation(), worker.span("work"):
        raise ValueError("no")
    assert (worker.sent[0]["status"], worker.sent[0]["status_description"]) == ("error", "ValueError: no")


def test_calls_logs_and_inner_spans_hang_below_the_innermost_span():
    worker, stream = Recorder(), io.StringIO()
    with invocation(baggage="k=v"), worker.span("outer") as outer:
        with worker.span("inner") as inner:
            message = prepare(TriggerRequest("a::b"), None, None)
            Logger(stream=stream).info("hi")
        assert current_trace() == outer.trace
    assert message["traceparent"] == inner.traceparent
    assert message["baggage"] == "k=v"
    told = {span["name"]: span for span in worker.sent}
    assert told["inner"]["parent_span_id"] == told["outer"]["span_id"]
    record = json.loads(stream.getvalue())
    assert (record["trace_id"], record["span_id"]) == (TRACE_ID, told["inner"]["span_id"])


@pytest.mark.parametrize("flags", ["00", ""])
def test_in_a_call_that_nobody_records_a_span_is_nothing(flags):
    worker = Recorder()
    with invocation(flags):
        before = current_trace()
        with worker.span("work") as span:
            assert span.traceparent is None
            assert current_trace() == before
    assert worker.sent == []


def test_outside_of_a_call_a_span_begins_a_trace_that_nobody_has_decided_about():
    worker = Recorder()
    with worker.span("main") as span:
        message = prepare(TriggerRequest("a::b"), None, None)
    assert message["traceparent"] == span.traceparent
    assert span.traceparent.endswith("-02")
    assert (worker.sent[0]["parent_span_id"], worker.sent[0]["flags"]) == (None, 2)
    assert current_trace() == {}


def test_an_undecided_trace_stays_undecided():
    worker = Recorder()
    with invocation("02"), worker.span("work") as span:
        assert span.traceparent.endswith("-02")
    assert worker.sent[0]["flags"] == 2


def test_an_invocation_that_runs_while_a_thread_waits_is_not_part_of_the_waiting_ones_span():
    worker = Recorder()
    with worker.span("waits"), invocation(flags=""):
        assert current_trace() == {}


def test_a_request_that_names_its_trace_keeps_it():
    worker = Recorder()
    given = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    with invocation(), worker.span("work"):
        message = prepare(TriggerRequest("a::b", trace=given), None, None)
    assert message["traceparent"] == given["traceparent"]
