"""One call, one outcome: who gets it, who may answer it, and what a full or silent worker costs."""

from __future__ import annotations

from typing import Any

import pytest

from iii.engine.routing.events import CallFailed
from iii.engine.routing.invocation import TICK, Deadlines, Invocation
from iii.engine.routing.payload_schemas import compile_result_schema
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Function
from iii.protocol.messages import ErrorBody
from tests.support.routing import Net, limits


def counters(net: Net) -> dict[str, int]:
    return dict(net.router.calls.counters)


# The plain way


def test_a_call_reaches_the_callee_byte_for_byte_and_so_does_its_answer(net: Net, caller: Peer) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f", data={"a": [1]})
    assert callee.outbox == [b'{"type":"invokefunction","invocation_id":"c1","function_id":"f","data":{"a":[1]}}']
    net.answer(callee)
    assert caller.outbox == [b'{"type":"invocationresult","invocation_id":"c1","function_id":"f","result":"ok"}']
    assert (callee.busy, caller.outgoing, net.router.calls.in_flight) == (0, 0, {})


def test_the_trace_of_an_answer_stays_behind(net: Net, caller: Peer) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f")
    net.answer(callee, result=1, traceparent="00-worker", baggage="b=1")
    assert net.one(caller) == {"type": "invocationresult", "invocation_id": "c1", "function_id": "f", "result": 1}


def test_only_the_callee_can_answer_and_only_once(net: Net, caller: Peer) -> None:
    callee, stranger = net.peer("w"), net.peer("stranger")
    net.register(callee, "f")
    net.call(caller, "f")
    net.answer(stranger, result="forged")
    net.answer(caller, result="forged")
    net.answer(callee, id="unknown")
    assert net.got(caller) == []
    net.answer(callee, result="true one")
    net.answer(callee, result="second")
    assert net.one(caller)["result"] == "true one"
    assert counters(net) == {"foreign_result": 2, "unknown_result": 2}


def test_an_id_in_flight_cannot_be_used_again(net: Net, caller: Peer) -> None:
    callee, other = net.peer("w"), net.peer("other", kind="client")
    net.register(callee, "f")
    net.call(caller, "f")
    net.call(other, "f")
    assert "in flight already" in net.error(other)["message"]
    assert net.calls_of(callee) == ["c1"]
    net.answer(callee)
    assert net.one(caller)["result"] == "ok"


def test_a_payload_that_does_not_fit_is_refused_with_its_path(caller: Peer) -> None:
    def compile_schema(_: Any) -> Any:
        return lambda data: None if bytes(data) == b"1" else {"message": "a must be 1", "path": "a"}

    net = Net(compile_schema=compile_schema)
    callee, caller = net.peer("w"), net.peer("caller")
    net.register(callee, "f")
    net.call(caller, "f", data=2)
    assert net.error(caller) == {"code": "invalid_payload", "message": "f: a must be 1", "details": {"path": "a"}}
    net.call(caller, "f", data=1)
    assert net.calls_of(callee) == ["c1"]


@pytest.mark.parametrize("type", ["enqueue", "delay"])
def test_an_action_does_not_take_a_payload_that_its_function_would_refuse(type: str) -> None:
    def validate(data: Any) -> Any:
        return None if bytes(data) in (b"1", b"[3]") else {"message": "a must be 1", "path": "a"}

    net = Net(compile_schema=lambda declaration: validate if declaration.id == "f" else None)
    callee, caller, provider = net.peer("w"), net.peer("caller"), net.peer("provider")
    net.register(callee, "f")
    net.register(provider, f"action::{type}")
    net.send(provider, "registeraction", id=type, function_id=f"action::{type}")
    net.call(caller, "f", "c1", data=2, action={"type": type, "queue": "q"})
    assert net.error(caller) == {"code": "invalid_payload", "message": "f: a must be 1", "details": {"path": "a"}}
    for id, data in (("c2", 1), ("c3", 3)):  # a queue with batches calls its function with a list
        net.call(caller, "f", id, data=data, action={"type": type, "queue": "q"})
    assert net.calls_of(provider) == ["c2", "c3"]


def test_a_result_that_its_schema_does_not_admit_is_an_error_of_its_function(caller: Peer) -> None:
    net = Net(compile_result_schema=compile_result_schema)
    callee, caller = net.peer("w"), net.peer("caller")
    net.register(callee, "f", response_format={"type": "integer"})
    for number, (result, said) in enumerate(
        [("text", 'it must be an integer, got "text"'), (None, "it must be an integer, got null"), (1.5, "got 1.5")]
    ):
        net.call(caller, "f", f"c{number}")
        net.answer(callee, f"c{number}", result=result)
        error = net.error(caller)
        assert error["code"] == "invalid_result"
        assert error["message"].startswith("f returned what its response format does not admit: ")
        assert said in error["message"]
        assert error["details"]["returned"] is True
    net.call(caller, "f", "good")
    net.answer(callee, "good", result=3.0)
    assert net.one(caller)["result"] == 3.0
    net.call(caller, "f", "items", stream=True)
    net.send(callee, "invocationresult", invocation_id="items", function_id="f")
    assert "error" not in net.one(caller)
    # The command line lets every function stream: a result is held to its format all the same.
    net.call(caller, "f", "no items", stream=True)
    net.answer(callee, "no items", result="text")
    assert net.error(caller)["code"] == "invalid_result"
    net.call(caller, "f", "nothing")
    net.send(callee, "invocationresult", invocation_id="nothing", function_id="f")
    assert net.error(caller)["code"] == "invalid_result"


def test_a_response_format_that_is_none_refuses_nothing(caller: Peer) -> None:
    net = Net(compile_result_schema=compile_result_schema)
    callee, caller = net.peer("w"), net.peer("caller")
    for number, schema in enumerate([{"type": "nonsense"}, True, {}, {"$ref": "http://x"}, None]):
        net.register(callee, f"f{number}", **({} if schema is None else {"response_format": schema}))
        net.call(caller, f"f{number}")
        net.answer(callee, result="text")
        assert net.one(caller)["result"] == "text"


def test_an_unknown_function_suggests_what_was_meant(net: Net, caller: Peer) -> None:
    net.register(net.peer("w"), "math::add")
    net.call(caller, "math::ad")
    error = net.error(caller)
    assert error["code"] == "function_not_found"
    assert "Did you mean math::add?" in error["message"]
    assert error["details"] == {"suggestions": ["math::add"]}


# Limits


def test_calls_under_way_of_one_caller_are_bounded(caller: Peer) -> None:
    net = Net(limits=limits(calls_per_peer=2))
    callee, caller = net.peer("w"), net.peer("caller")
    net.register(callee, "f")
    for id in ("a", "b", "c"):
        net.call(caller, "f", id)
    assert net.error(caller)["code"] == "overloaded"
    assert net.calls_of(callee) == ["a", "b"]
    net.answer(callee, "a")
    net.call(caller, "f", "d")
    assert net.calls_of(callee) == ["d"]


def test_a_worker_that_does_not_read_is_given_no_more_calls_but_all_results() -> None:
    net = Net(limits=limits(unsent_bytes=200))
    deaf, caller = net.peer("w"), net.peer("caller")
    net.register(deaf, "f")
    net.register(caller, "g")
    for id in ("a", "b", "c", "d"):
        net.call(caller, "f", id)
    assert net.error(caller)["code"] == "overloaded"
    net.call(deaf, "g", "x")
    net.got(caller)
    net.answer(caller, "x", result="y" * 1000)
    assert net.got(deaf, write=False)[-1]["result"] == "y" * 1000


@pytest.mark.parametrize(("deadline", "is_fine"), [(1, True), (1e12, True), (0, False), (-5, False)])
def test_a_deadline_must_be_positive(net: Net, caller: Peer, deadline: float, is_fine: bool) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f", deadline_ms=deadline)
    assert net.calls_of(callee) == (["c1"] if is_fine else [])
    assert is_fine or "positive" in net.error(caller)["message"]


def chain(net: Net, length: int) -> list[Peer]:
    """Peers p0, p1, ... each with a function f<n>; every call comes from the handler of the one before."""
    peers = [net.peer(f"p{number}") for number in range(length + 1)]
    for number, peer in enumerate(peers):
        net.register(peer, f"f{number}")
    for number in range(length):
        parent = {"caller": {"invocation_id": f"c{number - 1}"}} if number else {}
        net.call(peers[number], f"f{number + 1}", f"c{number}", **parent)
    return peers


def test_the_thirty_third_nested_call_is_a_loop_and_shows_the_chain(net: Net) -> None:
    peers = chain(net, 33)
    call, result = net.got(peers[32])
    assert call["invocation_id"] == "c31"
    error = result["error"]
    assert error["code"] == "loop_detected"
    assert len(error["details"]["chain"]) == 33


def test_only_the_callee_of_a_call_can_be_the_parent_of_another(net: Net, caller: Peer) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f", deadline_ms=10)
    net.call(caller, "f", "c2", caller={"invocation_id": "c1"})
    net.call(callee, "f", "c3", caller={"invocation_id": "c1"})
    net.call(callee, "f", "c4", caller="nonsense")
    net.call(callee, "f", "c5", caller=None)
    depths = {id: invocation.depth for id, invocation in net.router.calls.in_flight.items()}
    assert depths == {"c1": 1, "c2": 1, "c3": 2, "c4": 1, "c5": 1}


# Waiting


def full(net: Net, **fields: Any) -> Peer:
    return net.serving("w", "f", concurrency=1, **fields)


def test_calls_wait_for_room_in_the_order_they_came(net: Net, caller: Peer) -> None:
    callee, other = full(net), net.peer("other")
    for id, peer in (("a", caller), ("b", other), ("c", caller)):
        net.call(peer, "f", id)
    assert net.calls_of(callee) == ["a"]
    net.answer(callee, "a")
    assert net.calls_of(callee) == ["b"]
    net.answer(callee, "b")
    assert net.calls_of(callee) == ["c"]


def test_waiting_is_bounded_for_each_function() -> None:
    net = Net(limits=limits(waiting_per_function=2))
    callee, caller = net.serving("w", "f", "g", concurrency=1), net.peer("caller")
    for id in ("running", "a", "b"):
        net.call(caller, "f", id)
    net.call(caller, "f", "c")
    assert net.error(caller)["code"] == "overloaded"
    net.call(caller, "g", "d")
    assert net.got(caller) == []
    assert net.calls_of(callee) == ["running"]


def test_a_call_that_waits_for_itself_fails_at_once_and_shows_the_chain(net: Net, caller: Peer) -> None:
    a, b = net.serving("a", "a::f", concurrency=1), net.serving("b", "b::f", concurrency=1)
    net.call(caller, "a::f", "c1")
    net.call(a, "b::f", "c2", caller={"invocation_id": "c1"})
    net.call(b, "a::f", "c3", caller={"invocation_id": "c2"})
    net.got(a)
    error = next(message["error"] for message in net.got(b) if "error" in message)
    assert error["code"] == "deadlock_detected"
    assert error["details"]["chain"] == ["a::f", "b::f", "a::f"]
    net.answer(b, "c2", error={"code": "x", "message": "gave up"})
    assert net.one(a)["error"]["code"] == "x"


def test_a_second_instance_makes_room_for_a_call_to_oneself(net: Net, caller: Peer) -> None:
    first, second = full(net), full(net, instance=2)
    net.call(caller, "f", "c1")
    net.call(first, "f", "c2", caller={"invocation_id": "c1"})
    assert net.calls_of(second) == ["c2"]


def test_the_least_busy_instance_gets_the_call(net: Net, caller: Peer) -> None:
    first, second = net.serving("w", "f"), net.serving("w", "f", instance=2)
    for id in ("a", "b", "c"):
        net.call(caller, "f", id)
    assert (net.calls_of(first), net.calls_of(second)) == (["a", "c"], ["b"])
    net.answer(second, "b")
    net.call(caller, "f", "d")
    assert net.calls_of(second) == ["d"]


def test_a_waiting_call_that_only_a_busy_instance_can_run_lets_the_next_one_pass(net: Net, caller: Peer) -> None:
    first, second = net.serving("w", "f", "g", concurrency=1), net.serving("w", "f", concurrency=1, instance=2)
    for function, id in (("g", "a"), ("f", "b"), ("g", "c"), ("f", "d")):
        net.call(caller, function, id)
    assert (net.calls_of(first), net.calls_of(second)) == (["a"], ["b"])
    net.answer(second, "b")
    assert net.calls_of(second) == ["d"]
    net.answer(first, "a")
    assert net.calls_of(first) == ["c"]


def test_a_free_instance_does_not_wait_for_a_busy_one(net: Net, caller: Peer) -> None:
    first, second = net.serving("w", "f", "g", concurrency=1), net.serving("w", "g", concurrency=1, instance=2)
    net.call(caller, "f", "a")
    net.call(caller, "f", "b")
    net.call(caller, "g", "c")
    assert (net.calls_of(first), net.calls_of(second)) == (["a"], ["c"])


def test_unregistering_fails_what_waits_and_lets_finish_what_runs(net: Net, caller: Peer) -> None:
    callee = full(net)
    net.call(caller, "f", "runs")
    net.call(caller, "f", "waits")
    net.send(callee, "unregisterfunction", id="f")
    assert net.error(caller)["code"] == "function_not_found"
    net.answer(callee, "runs")
    assert net.one(caller)["result"] == "ok"
    assert not callee.owner.waiting


def test_what_waits_moves_to_the_standby_that_takes_over(net: Net, caller: Peer) -> None:
    callee, standby = full(net), net.peer("standby")
    net.register(standby, "f")
    for id in ("runs", "b", "c"):
        net.call(caller, "f", id)
    net.got(standby)
    net.send(callee, "unregisterfunction", id="f")
    assert net.calls_of(standby) == ["b", "c"]


# Cancelling and deadlines


def test_a_cancelled_call_is_forgotten_by_its_caller_and_told_to_its_callee_once(net: Net, caller: Peer) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f")
    net.got(callee)
    net.send(caller, "cancel", invocation_id="c1")
    assert net.one(callee) == {"type": "cancel", "invocation_id": "c1"}
    assert (caller.outgoing, callee.busy) == (0, 1)
    net.later(100)
    net.send(caller, "cancel", invocation_id="c1")
    assert net.got(callee) == []
    net.answer(callee)
    assert net.got(caller) == []
    assert (callee.busy, counters(net)) == (0, {"unknown_cancel": 1, "unawaited_result": 1})


def test_nobody_cancels_the_call_of_another(net: Net, caller: Peer) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f")
    net.got(callee)
    net.send(callee, "cancel", invocation_id="c1")
    net.send(net.peer("stranger"), "cancel", invocation_id="c1")
    assert net.got(callee) == []
    net.answer(callee)
    assert net.one(caller)["result"] == "ok"


def test_a_cancelled_call_leaves_the_queue(net: Net, caller: Peer) -> None:
    callee = full(net)
    for id in ("a", "b", "c"):
        net.call(caller, "f", id)
    net.send(caller, "cancel", invocation_id="b")
    net.got(callee)
    net.answer(callee, "a")
    assert net.calls_of(callee) == ["c"]


def test_a_call_ends_at_its_deadline_and_the_late_answer_is_dropped(net: Net, caller: Peer) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f", deadline_ms=500)
    net.later(0.499)
    assert net.got(caller) == []
    net.got(callee)
    net.later(0.001)
    error = net.error(caller)
    assert (error["code"], error["retryable"], error["details"]) == ("TIMEOUT", True, {"started": True})
    assert "after 500ms" in error["message"]
    assert net.one(callee) == {"type": "cancel", "invocation_id": "c1"}
    net.answer(callee)
    assert (net.got(caller), callee.busy, net.router.calls.in_flight) == ([], 0, {})


def test_a_caller_that_awaits_the_end_gets_the_late_answer_as_it_is(net: Net, caller: Peer) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f", deadline_ms=500, awaits_end=True)
    net.got(callee)
    net.later(0.5)
    assert net.one(callee) == {"type": "cancel", "invocation_id": "c1"}
    net.later(1000.0)
    assert (net.got(caller), net.got(callee), callee.busy, callee.owed) == ([], [], 1, 1)
    net.answer(callee, result="late")
    assert net.one(caller)["result"] == "late"
    assert (callee.busy, caller.outgoing, net.router.calls.in_flight) == (0, 0, {})


def test_a_job_whose_last_attempt_still_runs_for_a_caller_that_died_is_not_begun_beside_it(net: Net) -> None:
    dead, queue, callee = net.peer("queue"), net.peer("queue"), net.peer("w")
    net.register(callee, "f")
    job = {"metadata": {"iii.job": {"id": "job-1"}}, "deadline_ms": 500, "awaits_end": True}
    net.call(dead, "f", "a", **job)
    net.got(callee)
    net.router.peer_table.detach(dead)
    net.call(queue, "f", "b", **job)
    error = net.error(queue)
    assert (error["code"], error["details"]) == ("overloaded", {"retry_after_ms": 100})
    net.call(queue, "f", "other", **job | {"metadata": {"iii.job": {"id": "job-2"}}})
    net.call(queue, "f", "plain", deadline_ms=500, awaits_end=True)
    assert net.calls_of(callee) == ["other", "plain"]
    net.answer(callee, "a")
    net.call(queue, "f", "c", **job)
    assert net.calls_of(callee) == ["c"]


def test_a_cancelled_call_that_was_awaited_to_its_end_is_told_as_timed_out(net: Net) -> None:
    provider, callee = net.serving("queue"), net.peer("w")
    net.send(provider, "registertriggertype", id="job", description="")
    net.register(callee, "f")
    net.call(provider, "f", deadline_ms=500, awaits_end=True)
    net.got(callee)
    net.later(0.5)
    net.answer(callee, error={"code": "cancelled", "message": "the caller gave up"})
    [told] = [event for event in net.router.events if isinstance(event, CallFailed)]
    assert isinstance(told.error, ErrorBody)
    assert (told.error.code, told.error.message) == ("TIMEOUT", "f: invocation timed out after 500ms")
    assert net.error(provider)["code"] == "cancelled"


def test_a_caller_that_awaits_the_end_waits_for_no_call_that_has_not_begun(net: Net, caller: Peer) -> None:
    callee = net.peer("w", concurrency=1)
    net.register(callee, "f")
    net.call(caller, "f", "a")
    net.call(caller, "f", "b", deadline_ms=500, awaits_end=True)
    net.later(0.5)
    error = net.error(caller)
    assert (error["code"], error["details"]) == ("TIMEOUT", {"started": False})
    net.answer(callee, "a")
    assert (net.calls_of(callee), net.router.calls.in_flight) == (["a"], {})


def test_a_caller_that_awaits_the_end_learns_that_the_callee_is_gone_and_may_give_up(net: Net, caller: Peer) -> None:
    callee, other = net.peer("w"), net.peer("v")
    net.register(callee, "f")
    net.register(other, "g")
    net.call(caller, "f", "a", deadline_ms=500, awaits_end=True)
    net.call(caller, "g", "b", deadline_ms=500, awaits_end=True)
    net.got(callee)
    net.later(0.5)
    net.call(caller, "g", "c", deadline_ms=500, awaits_end=True)
    net.later(0.5)
    net.send(caller, "cancel", invocation_id="b")
    assert (other.busy, other.owed, caller.outgoing) == (2, 1, 2)
    net.router.peer_table.detach(callee)
    assert net.error(caller)["code"] == "invocation_stopped"
    net.answer(other, "b")
    assert net.got(caller) == []
    net.router.peer_table.detach(other)  # which had not read the call that is overdue
    assert net.error(caller)["details"] == {"started": False}
    assert net.router.calls.in_flight == {}


def test_a_call_without_a_deadline_gets_the_engines(caller: Peer) -> None:
    net = Net(timeout=2.0)
    callee, caller = net.peer("w"), net.peer("caller")
    net.register(callee, "f")
    net.call(caller, "f")
    net.later(2.0)
    assert "after 2000ms" in net.error(caller)["message"]


def test_an_inner_call_ends_with_the_outer_one(net: Net, caller: Peer) -> None:
    a, b = net.peer("a"), net.peer("b")
    net.register(a, "a::f")
    net.register(b, "b::f")
    net.call(caller, "a::f", "c1", deadline_ms=1000)
    net.later(0.4)
    net.call(a, "b::f", "c2", caller={"invocation_id": "c1"}, deadline_ms=5000)
    net.got(a)
    net.later(0.6)
    assert net.error(caller)["code"] == "TIMEOUT"
    assert {message.get("error", {}).get("code") for message in net.got(a)} == {None, "TIMEOUT"}


def test_a_call_that_times_out_in_the_queue_says_so(net: Net, caller: Peer) -> None:
    callee = full(net)
    net.call(caller, "f", "a")
    net.call(caller, "f", "b", deadline_ms=10)
    net.later(1)
    error = net.error(caller)
    assert "while waiting" in error["message"]
    assert error["details"] == {"started": False}
    net.got(callee)
    net.answer(callee, "a")
    assert net.got(callee) == []


def test_a_void_call_that_runs_out_of_time_in_the_queue_leaves_a_trace(net: Net, caller: Peer) -> None:
    full(net)
    net.call(caller, "f", "a", deadline_ms=1e9)
    net.void(caller, "f")
    net.later(31)
    assert net.got(caller) == []
    assert net.failures() == [("f", True)]
    assert counters(net) == {"void_dropped": 1}
    assert list(net.router.calls.in_flight) == ["a"]


def test_a_stopping_engine_takes_only_the_calls_that_running_ones_make(net: Net, caller: Peer) -> None:
    callee = net.peer("w")
    net.register(callee, "f")
    net.call(caller, "f")
    net.router.calls.stop_admitting()
    net.call(caller, "f", "c2")
    assert net.error(caller)["code"] == "engine_stopping"
    net.call(callee, "f", "c3", caller={"invocation_id": "c1"})
    assert net.calls_of(callee) == ["c1", "c3"]


def test_tables_describe_themselves(net: Net, caller: Peer) -> None:
    callee = full(net)
    net.call(caller, "f")
    assert repr(net.router) == "<Router 2 peers, 1 functions, 1 in flight>"
    assert repr(callee) == "<Peer w generation 1 1 busy>"


# The heap of deadlines


def invocation(net: Net, deadline: float) -> Invocation:
    peer = Peer("p", kind="client")
    return Invocation("i", Function("f", "default", peer.owner), b"", peer, deadline, 1.0)


def test_deadlines_come_out_earliest_first_and_finished_calls_never(net: Net) -> None:
    deadlines = Deadlines()
    calls = [invocation(net, deadline) for deadline in (3.0, 1.0, 2.0, 9.0)]
    for call in calls:
        deadlines.add(call)
    assert deadlines.wait(0.0) == TICK
    calls[2].is_done = True
    assert deadlines.expired(0.5) == []
    assert deadlines.wait(0.5) == 0.5
    assert deadlines.wait(50.0) == 0.0
    assert deadlines.expired(5.0) == [calls[1], calls[0]]
    calls[3].is_done = True
    assert deadlines.expired(5.0) == []
    assert (len(deadlines), deadlines.wait(5.0)) == (0, None)


def test_deadlines_of_finished_calls_do_not_pile_up(net: Net) -> None:
    deadlines = Deadlines()
    calls = [invocation(net, 1000.0 + number) for number in range(500)]
    for call in calls:
        deadlines.add(call)
    deadlines.expired(0.0)
    for call in calls[1:]:
        call.is_done = True
    deadlines.expired(0.0)
    assert len(deadlines) == 1


def failing(net: Net, callee: Peer, id: str) -> None:
    net.send(callee, "invocationresult", invocation_id=id, error={"code": "boom", "message": "no"})


def test_a_void_call_that_fails_is_reported_one_that_is_waited_for_is_not(net: Net, caller: Peer) -> None:
    callee = net.serving("w", "f")
    net.void(caller, "f")
    net.call(caller, "f", "b")
    failing(net, callee, net.got(callee)[0]["invocation_id"])
    failing(net, callee, "b")
    assert net.failures() == [("f", True)]


def test_a_call_that_succeeds_is_no_failure(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "f")
    caller.owner.fires_triggers = True
    net.call(caller, "f")
    net.answer(worker)
    assert net.failures() == []


def test_a_failed_call_of_a_peer_that_fires_triggers_is_reported(net: Net, caller: Peer) -> None:
    callee = net.serving("w", "f")
    net.send(caller, "registertriggertype", id="tick", description="")
    net.call(caller, "f", "a")
    failing(net, callee, "a")
    net.call(caller, "nothing", "b")
    assert net.failures() == [("f", False), ("nothing", False)]


def test_a_void_call_that_fails_after_its_time_is_reported_once(net: Net, caller: Peer) -> None:
    callee = net.serving("w", "f")
    net.void(caller, "f")
    id = net.one(callee)["invocation_id"]
    net.later(31)
    failing(net, callee, id)
    assert net.failures() == [("f", True)]


def test_a_mistake_costs_no_more_with_many_functions_and_long_names(net: Net, caller: Peer) -> None:
    """Only so many ids are looked at: those that were there first."""
    first = net.serving("first", "math::add")
    net.register(first, *(f"bulk::{number:05d}::{'ab' * 90}" for number in range(2_000)), "zebra::sum")
    net.call(caller, "math::ad")
    assert net.error(caller)["details"] == {"suggestions": ["math::add"]}
    net.call(caller, "zebra::sun")
    assert "details" not in net.error(caller)
    net.call(caller, f"bulk::{'ba' * 100_000}")
    error = net.error(caller)
    assert error["message"] == f"Function bulk::{'ba' * 29} not found in namespace default".replace(
        " not found", "... (200006 characters) not found"
    )
    assert "details" not in error


def test_an_option_of_enqueue_has_no_say_about_what_is_called(net: Net, caller: Peer) -> None:
    queue = net.serving("queue", "engine::queue::enqueue")
    options = {"function_id": "b", "namespace": "private", "data": 2, "traceparent": "x", "messageReceiptId": "mine"}
    net.call(caller, "a::f", data=1, action={"type": "enqueue", "queue": "q", "delay_ms": 5, **options})
    payload = net.got(queue)[-1]["data"]
    assert payload == {
        "queue": "q",
        "delay_ms": 5,
        "function_id": "a::f",
        "data": 1,
        "messageReceiptId": payload["messageReceiptId"],
        "traceparent": None,
        "baggage": None,
    }
    assert payload["messageReceiptId"] != "mine"
