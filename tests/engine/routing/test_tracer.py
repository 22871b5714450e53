"""The spans of calls: which call gets one, its parent, its end, and the trace context that the callee gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.engine.routing.peer import Peer
from iii.engine.routing.tracer import Span, Tracer
from iii.engine.telemetry.span_records import span_record, trigger_finder
from iii.engine.tracing.sampling import Rule, Sampler, Sampling
from iii.engine.tracing.trace_context import context_from
from iii.protocol.codec import decode, encode_value
from tests.support.lines_run import lines_run
from tests.support.routing import Net

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Traced(Net):
    """A net whose calls are recorded; ids count up, and the clock is the net's."""

    def __init__(self, sampling: Sampling | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.minted = 0
        self.calls = 0
        self.tracer = Tracer(
            Sampler(sampling or Sampling()),
            self.router.calls.in_flight,
            mint=self._mint,
            clock=lambda: self.now,
            on_finished=self._note,
            on_state_changed=self.router.choose_path,
        )
        self.router.trace(self.tracer)
        self.caller = self.serving("calc", "calc::sum")
        self.callee = self.serving("math", "math::add")

    def _mint(self, bits: int) -> int:
        self.minted += 1
        return self.minted << (bits - 64) | self.minted

    def _note(self) -> None:
        self.calls += 1

    def spans(self) -> list[Span]:
        """Return what is finished, and forget it."""
        return self.tracer.take(100)

    def span(self) -> Span:
        (span,) = self.spans()
        return span

    def row(self) -> dict[str, Any]:
        """Return the one span as it is handed over."""
        form = span_record(self.span(), 0.0, trigger_finder(self.router.bindings))
        row: dict[str, Any] = json.loads(encode_value(form))
        return row


def traceparent(peer_message: dict[str, Any]) -> tuple[str, str]:
    context = context_from(peer_message["traceparent"])
    assert context is not None
    assert context.is_sampled
    return context.trace_id, context.span_id


# What a call tells


def test_a_call_is_told_with_who_called_whom_and_when() -> None:
    net = Traced()
    net.call(net.caller, "math::add")
    trace_id, span_id = traceparent(net.one(net.callee))
    net.now += 0.5
    net.answer(net.callee)
    row = net.row()
    assert (row["trace_id"], row["span_id"], row["parent_span_id"]) == (trace_id, span_id, None)
    assert (row["name"], row["service_name"], row["status"]) == ("call math::add", "math", "ok")
    assert row["end_time_unix_nano"] - row["start_time_unix_nano"] == 500_000_000
    assert row["attributes"] == {
        "iii.function.id": "math::add",
        "function_id": "math::add",
        "iii.invocation.id": "c1",
        "iii.caller.worker": "calc",
        "iii.callee.worker": "math",
        "iii.callee.instance": 1,
        "iii.worker.generation": 1,
    }


def test_the_callee_gets_the_call_as_it_was_but_for_the_trace() -> None:
    net = Traced()
    net.call(net.caller, "math::add", data={"a": 1}, metadata={"m": 2}, baggage="k=v", deadline_ms=5000)
    got = net.one(net.callee)
    assert got.pop("traceparent").endswith("-01")
    assert got == {
        "type": "invokefunction",
        "function_id": "math::add",
        "invocation_id": "c1",
        "data": {"a": 1},
        "metadata": {"m": 2},
        "baggage": "k=v,iii.function.id=math::add",
        "deadline_ms": 5000.0,
    }


def test_a_call_that_is_not_recorded_passes_byte_for_byte() -> None:
    net = Traced(Sampling(default=0.0))
    line = b'{"type":"invokefunction","invocation_id":"c1","function_id":"math::add","data":{ "a" : 1}}'
    net.router.receive(net.caller, decode(line), line, net.now)
    assert net.callee.outbox == [line]
    net.answer(net.callee)
    assert net.spans() == []


@pytest.mark.parametrize(
    ("fields", "status", "attributes"),
    [
        ({"error": {"code": "bad", "message": "no"}}, "error", {"error.code": "bad"}),
        ({"error": "words"}, "error", {"error.code": "UNKNOWN"}),
        ({"result": None}, "ok", {}),
        ({"error": None, "result": 1}, "ok", {}),
    ],
)
def test_a_span_ends_as_its_call_does(fields: dict[str, Any], status: str, attributes: dict[str, Any]) -> None:
    net = Traced()
    net.call(net.caller, "math::add")
    net.answer(net.callee, **fields)
    row = net.row()
    assert row["status"] == status
    assert attributes.items() <= row["attributes"].items()


def test_a_call_that_finds_no_function_ends_at_once() -> None:
    net = Traced()
    net.call(net.caller, "nobody::home")
    row = net.row()
    assert (row["status"], row["service_name"]) == ("error", "iii")
    assert row["attributes"]["error.code"] == "function_not_found"
    assert "nobody::home not found" in row["status_description"]


def test_a_call_that_runs_out_of_time_ends_then_and_not_with_its_late_answer() -> None:
    net = Traced(timeout=5.0)
    net.call(net.caller, "math::add")
    net.later(6)
    span = net.span()
    assert span.error is not None
    assert span.error[0] == "TIMEOUT"
    net.answer(net.callee)
    assert net.spans() == []


def test_a_call_that_is_given_up_ends_as_cancelled() -> None:
    net = Traced()
    net.call(net.caller, "math::add")
    net.send(net.caller, "cancel", invocation_id="c1")
    assert net.span().error == ("cancelled", "the caller gave up", "")


def test_a_call_whose_worker_dies_ends_with_it() -> None:
    net = Traced()
    net.call(net.caller, "math::add")
    net.write(net.callee)
    net.router.peer_table.detach(net.callee)
    span = net.span()
    assert span.error is not None
    assert span.error[0] == "invocation_stopped"


def test_a_call_that_waited_tells_how_long() -> None:
    net = Traced()
    net.router.peer_table.detach(net.callee)
    net.router.peer_table.expect("math")
    net.call(net.caller, "math::add")
    net.now += 2.0
    again = net.serving("math", "math::add", generation=2)
    net.answer(again)
    attributes = net.row()["attributes"]
    assert (attributes["iii.queue.wait_ms"], attributes["iii.worker.generation"]) == (2000.0, 2)


def test_only_the_callee_ends_a_span() -> None:
    net = Traced()
    net.call(net.caller, "math::add")
    net.answer(net.caller)
    assert net.spans() == []
    net.answer(net.callee)
    assert net.span().error is None


def test_a_second_call_of_the_same_id_takes_nothing_from_the_first() -> None:
    net = Traced()
    net.call(net.caller, "math::add")
    net.call(net.caller, "math::add")
    net.call(net.caller, "math::add", namespace="default")
    net.call(net.caller, "math::add", namespace=" ")
    assert net.spans() == []
    net.answer(net.callee)
    assert net.span().error is None
    assert net.tracer.spans == {}


# Where it hangs


def test_what_a_handler_calls_hangs_below_its_own_call() -> None:
    net = Traced()
    client = net.peer("cli", kind="client")
    net.call(client, "calc::sum", "outer")
    outer = net.one(net.caller)
    caller = {"invocation_id": "outer", "function_id": "calc::sum"}
    net.call(net.caller, "math::add", "inner", caller=caller, traceparent=outer["traceparent"])
    net.answer(net.callee, "inner")
    net.answer(net.caller, "outer")
    inner, span = net.spans()
    assert (inner.trace_id, inner.parent_id) == (span.trace_id, span.span_id)
    assert inner.caller == "calc::sum"


def test_a_program_that_only_names_its_caller_hangs_below_it_too() -> None:
    net = Traced()
    net.call(net.peer("cli", kind="client"), "calc::sum", "outer")
    net.got(net.caller)
    net.call(net.caller, "math::add", "inner", caller={"invocation_id": "outer"})
    assert traceparent(net.one(net.callee))[0] == net.tracer.spans["outer"].trace_id
    assert net.tracer.spans["inner"].parent_id == net.tracer.spans["outer"].span_id


def test_nobody_hangs_its_calls_below_those_of_another() -> None:
    net = Traced()
    stranger = net.peer("stranger")
    net.call(net.peer("cli", kind="client"), "calc::sum", "outer")
    net.call(stranger, "math::add", "inner", caller={"invocation_id": "outer"})
    assert set(net.tracer.spans) == {"outer"}


def test_what_an_unrecorded_call_calls_is_not_recorded() -> None:
    net = Traced(Sampling(default=1.0, rules=(Rule(0.0, operation="calc::*"),)))
    net.call(net.peer("cli", kind="client"), "calc::sum", "outer")
    net.call(net.caller, "math::add", "inner", caller={"invocation_id": "outer"})
    assert net.tracer.spans == {}


@pytest.mark.parametrize(("flags", "sampling", "is_recorded"), [
    ("01", Sampling(parent_based=True), True),
    ("00", Sampling(parent_based=True), False),
    ("00", Sampling(), True),
    ("01", Sampling(default=0.0), False),
    ("02", Sampling(parent_based=True), True),
    ("02", Sampling(default=0.0), False),
    ("03", Sampling(parent_based=True), True),
])  # fmt: skip
def test_a_context_from_outside_is_followed_or_decided(flags: str, sampling: Sampling, *, is_recorded: bool) -> None:
    net = Traced(sampling)
    net.call(net.caller, "math::add", traceparent=f"00-{TRACE}-{SPAN}-{flags}")
    assert bool(net.tracer.spans) is is_recorded
    if is_recorded:
        assert (net.tracer.spans["c1"].trace_id, net.tracer.spans["c1"].parent_id) == (TRACE, SPAN)
    else:
        assert net.one(net.callee)["traceparent"] == f"00-{TRACE}-{SPAN}-{flags}"


def test_an_undecided_trace_is_decided_once_for_all_its_calls() -> None:
    net = Traced(Sampling(max_traces_per_second=1.0))
    for number in range(3):
        net.call(net.caller, "math::add", f"a{number}", traceparent=f"00-{TRACE}-{SPAN}-02")
        net.call(net.caller, "math::add", f"b{number}", traceparent=f"00-{'1' * 32}-{SPAN}-02")
    assert set(net.tracer.spans) == {"a0", "a1", "a2"}


def test_a_context_that_is_not_valid_is_none() -> None:
    net = Traced()
    net.call(net.caller, "math::add", traceparent="00-zz-11-01")
    assert net.tracer.spans["c1"].parent_id is None


@given(st.text("0123456789abcdefg-Z", max_size=60))
def test_any_text_is_a_valid_context_or_none(text: str) -> None:
    context = context_from(text)
    assert context is None or (int(context.trace_id, 16) and int(context.span_id, 16) and text[:2] != "ff")


def test_version_zero_says_nothing_more_and_later_ones_may() -> None:
    assert context_from(f"00-{TRACE}-{SPAN}-01-more") is None
    assert context_from(f"01-{TRACE}-{SPAN}-01-more") == (TRACE, SPAN, 1)


# Forms of calls


def test_an_enqueued_call_is_told_as_that_and_its_job_hangs_below_it() -> None:
    net = Traced()
    queue = net.serving("queue", "engine::queue::enqueue")
    net.call(net.caller, "math::add", action={"type": "enqueue", "queue": "bulk"})
    handed = net.one(queue)
    assert handed["data"]["traceparent"] == handed["traceparent"]
    net.answer(queue, result={"messageReceiptId": "r"})
    span_id = traceparent(handed)[1]
    row = net.row()
    assert (row["name"], row["span_id"], row["service_name"]) == ("enqueue math::add → bulk", span_id, "queue")
    assert (row["attributes"]["iii.action"], row["attributes"]["iii.queue.name"]) == ("enqueue", "bulk")


def test_a_refused_enqueue_ends_its_span() -> None:
    net = Traced()
    net.call(net.caller, "math::add", action={"type": "enqueue"})
    assert net.row()["attributes"]["error.code"] == "enqueue_error"
    assert net.tracer.spans == {}


def test_a_void_call_ends_when_its_worker_answers() -> None:
    net = Traced()
    net.void(net.caller, "math::add")
    net.answer(net.callee, net.one(net.callee)["invocation_id"])
    assert net.row()["attributes"]["iii.action"] == "void"


def test_the_trigger_behind_a_call_is_told_and_its_id_if_there_is_one() -> None:
    net = Traced()
    cron = net.serving("cron")
    net.send(cron, "registertriggertype", id="cron")
    net.bind(net.callee, "t1", "cron", "math::add")
    net.call(cron, "math::add")
    net.answer(net.callee)
    attributes = net.row()["attributes"]
    assert (attributes["iii.trigger.type"], attributes["iii.trigger.id"]) == ("cron", "t1")
    net.bind(net.callee, "t2", "cron", "math::add", config={"other": 1})
    net.call(cron, "math::add", "c2")
    net.answer(net.callee, "c2")
    attributes = net.row()["attributes"]
    assert attributes["iii.trigger.type"] == "cron"
    assert "iii.trigger.id" not in attributes


def test_the_engines_own_functions_are_internal_and_begin_no_trace() -> None:
    net = Traced()
    engine = Peer("engine", kind="engine", name="engine")
    net.router.peer_table.attach(engine)
    net.register(engine, "engine::workers::list")
    net.call(net.caller, "engine::workers::list", "c1")
    assert net.tracer.spans == {}
    net.call(net.caller, "engine::workers::list", "c2", traceparent=f"00-{TRACE}-{SPAN}-01")
    net.answer(engine, "c2")
    assert net.row()["attributes"]["iii.function.kind"] == "internal"


def test_whoever_takes_the_feed_is_not_traced_nor_what_it_does() -> None:
    net = Traced()
    net.callee.owner.is_observer = True
    net.call(net.caller, "math::add", "c1")
    net.call(net.caller, "math::add", "c2", traceparent=f"00-{TRACE}-{SPAN}-01")
    net.call(net.callee, "calc::sum", "c3")
    net.call(net.callee, "calc::sum", "c4", traceparent=f"00-{TRACE}-{SPAN}-02")
    assert net.tracer.spans == {}


@pytest.mark.parametrize(("is_local", "flags", "is_traced"), [(True, 0, False), (True, 1, True), (False, 0, True)])
def test_a_local_program_that_says_that_it_does_not_record_is_not_recorded(
    is_local: bool, flags: int, is_traced: bool
) -> None:
    net = Traced()
    net.caller.is_local = is_local
    net.caller.functions.clear()
    net.call(net.caller, "math::add", "c1", traceparent=f"00-{TRACE}-{SPAN}-0{flags}")
    assert bool(net.tracer.spans) == is_traced
    assert net.caller.owner.is_observer != is_traced


def test_a_local_worker_that_passes_on_a_trace_that_is_not_recorded_is_no_observer() -> None:
    net = Traced()
    net.caller.is_local = True
    trace = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    net.call(net.caller, "math::add", "c1", caller={"function_id": "calc::sum", "invocation_id": "c0"}, **trace)
    assert not net.caller.owner.is_observer
    net.register(net.caller, "calc::more")
    net.call(net.caller, "math::add", "c2", **trace)
    assert not net.caller.owner.is_observer


# Payloads, spans under way


def test_a_payload_is_kept_up_to_the_bound() -> None:
    net = Traced()
    net.tracer.max_payload = 10
    for id, data in (("c1", {"a": 1}), ("c2", {"a": "x" * 10})):
        net.call(net.caller, "math::add", id, data=data)
        net.answer(net.callee, id)
    short, long = [span_record(span, 0.0, trigger_finder([])).events[0].attributes for span in net.spans()]
    assert short == [("iii.payload.json", '{"a":1}')]
    assert long == [("iii.payload.truncated", "true")]


def test_spans_under_way_are_told_as_pending_once() -> None:
    net = Traced()
    net.tracer.newly_begun = []
    net.call(net.caller, "math::add", "c1")
    net.call(net.caller, "math::add", "c2")
    net.answer(net.callee, "c2")
    (pending,) = net.tracer.take_pending(10)
    row = json.loads(encode_value(span_record(pending, 0.0, trigger_finder([]))))
    assert (row["pending"], row["end_time_unix_nano"], row["status"]) == (True, 0, "unset")
    assert net.tracer.take_pending(10) == []
    net.answer(net.callee, "c1")
    assert pending in net.spans()


# Pauses


def is_plain(net: Traced) -> bool:
    """Whether calls take the path of a project without tracing."""
    return net.router._admit == net.router.calls.admit


def test_without_a_tracer_the_plain_table_runs() -> None:
    net = Traced()
    net.router.trace(None)
    net.call(net.caller, "math::add")
    assert is_plain(net)
    assert net.router.calls.tracer is None
    assert "traceparent" not in net.one(net.callee)


def test_a_spent_limit_gives_calls_to_the_plain_table_until_it_is_over() -> None:
    net = Traced(Sampling(max_traces_per_second=1.0))
    net.call(net.caller, "math::add", "c1")
    assert is_plain(net)
    net.call(net.caller, "math::add", "c2")
    net.answer(net.callee, "c1")
    net.answer(net.callee, "c2")
    assert [span.invocation_id for span in net.spans()] == ["c1"]
    net.now = net.tracer.paused_until + 0.01
    net.tracer.resume()
    assert not is_plain(net)
    net.call(net.caller, "math::add", "c3")
    assert "c3" in net.tracer.spans


def test_what_belongs_to_a_recorded_trace_is_recorded_while_no_new_one_begins() -> None:
    net = Traced(Sampling(max_traces_per_second=1.0))
    net.call(net.peer("cli", kind="client"), "calc::sum", "outer")
    outer = net.one(net.caller)
    net.call(net.caller, "math::add", "inner", traceparent=outer["traceparent"], caller={"invocation_id": "outer"})
    net.answer(net.callee, "inner")
    net.answer(net.caller, "outer")
    assert [span.invocation_id for span in net.spans()] == ["inner", "outer"]


def test_too_many_waiting_spans_stop_new_traces() -> None:
    net = Traced()
    net.tracer.pause_at = 4
    for number in range(10):
        net.call(net.caller, "math::add", f"c{number}")
        net.answer(net.callee, f"c{number}")
    assert len(net.tracer.finished) == 4
    assert is_plain(net)
    assert len(net.tracer.take(2)) == 2
    assert not is_plain(net)


def test_no_more_spans_wait_than_there_is_room_for() -> None:
    net = Traced()
    net.tracer.max_finished = 3
    for number in range(5):
        net.call(net.caller, "math::add", f"c{number}")
        net.answer(net.callee, f"c{number}")
    assert [span.invocation_id for span in net.tracer.finished] == ["c0", "c1", "c2"]
    assert net.tracer.take_dropped() == 2


def test_to_take_spans_of_a_worker_is_the_same_work_for_one_and_for_a_thousand() -> None:
    def work(count: int) -> int:
        net = Traced()
        message = decode(json.dumps({"type": "telemetry", "spans": [{"trace_id": TRACE}] * count}).encode())
        taken = lines_run(lambda: net.router.receive(net.callee, message, b"", net.now))
        assert len(net.tracer.worker_spans) == 1
        return taken

    assert work(1000) == work(1)
