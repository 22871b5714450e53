"""Spans that a worker opens itself: where they hang, what they tell, and what hangs below them."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from iii import Logger
from iii.worker.api.requests import TriggerRequest
from iii.worker.calls.call_table import prepare
from iii.worker.context.invocation import CURRENT, InvocationContext
from iii.worker.context.tracing import Tracing, current_trace
from iii.worker.runtime.lines import LineWriter
from iii.worker.worker import Worker

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Recorder(Tracing):
    """A worker of which only the spans are there."""

    def __init__(self):
        self.sent = []

    def _send_span(self, span):
        self.sent.append(span)


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


def test_what_one_span_holds_is_bounded_and_what_is_left_out_is_counted():
    worker = Recorder()
    with invocation(), worker.span("loop") as span:
        for number in range(10_000):
            span.event("turn", {"number": number})
            span.set(f"key {number}", number)
    with invocation(), worker.span("large", {"body": "x" * 1_000_000, "kept": 1, "too": "y" * 100_000}) as span:
        span.event("dump", {"text": "z" * 100_000})
        span.event("small")
    many, large = worker.sent
    assert (len(many["events"]), many["events"][0]["attributes"]) == (128, [["number", "0"]])
    assert len(many["attributes"]) == 128 + 1
    assert many["attributes"]["iii.left_out"] == 2 * (10_000 - 128)
    assert large["attributes"] == {"kept": 1, "iii.left_out": 3}
    assert [event["name"] for event in large["events"]] == ["small"]
    assert all(len(json.dumps(span)) < 64 * 1024 for span in worker.sent)


def test_spans_for_an_engine_that_does_not_read_are_dropped_and_counted_by_the_next_one():
    is_read, has_begun = Event(), Event()
    written = []

    def write(data):
        has_begun.set()
        assert is_read.wait(20)
        written.append(data)

    class Sender(Tracing):
        _send_span = Worker._send_span

        def __init__(self):
            self._writer, self._lost_spans = LineWriter(write), 0

        def _send(self, message):
            self._writer.add(json.dumps(message).encode())
            self._writer.flush()

    worker = Sender()

    def work():
        with worker.span("one"):
            pass

    thread = Thread(target=work)
    thread.start()
    assert has_begun.wait(20)
    for _ in range(1_000):
        work()
    is_read.set()
    thread.join()
    work()
    messages = [json.loads(line) for block in written for line in block.split(b"\n") if line]
    dropped = sum(message.get("dropped", 0) for message in messages)
    assert len(messages) < 300
    assert len(messages) + dropped == 1_002
