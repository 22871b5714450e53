"""Calls between engines: found, run, ended and settled as calls on one engine are."""

from __future__ import annotations

import json

import pytest

from iii.engine.cluster.remote import RemoteEngine
from tests.support.engine_pair import DEAD, World


@pytest.fixture
def world() -> World:
    return World("a", "b", "c")


def test_a_call_of_a_function_that_runs_elsewhere_goes_there_and_its_result_comes_back(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add", data={"a": 1})
    world.run()
    call = world["b"].one(worker)
    assert (call["function_id"], call["data"], call["invocation_id"]) == ("math::add", {"a": 1}, "c1")
    world["b"].answer(worker, result={"c": 3})
    world.run()
    assert world["a"].one(caller)["result"] == {"c": 3}
    assert not world["a"].router.calls.in_flight
    assert not world["b"].router.calls.in_flight


def test_a_function_that_runs_here_is_preferred_and_elsewhere_is_next(world: World) -> None:
    there = world.serve("b", "math", "math::add")
    here = world.serve("a", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add")
    world.run()
    assert world["a"].calls_of(here) == ["c1"]
    world["a"].answer(here)
    world["a"].router.peer_table.detach(here)
    world["a"].call(caller, "math::add", "c2")
    world.run()
    assert world["b"].calls_of(there) == ["c2"]
    # And the other way: what runs elsewhere is given back to what comes here.
    again = world.serve("a", "math", "math::add")
    world["a"].call(caller, "math::add", "c3")
    assert world["a"].calls_of(again) == ["c3"]
    assert world["a"].notices() == []


def test_calls_are_shared_between_the_engines_that_have_the_function(world: World) -> None:
    workers = {name: world.serve(name, "math", "math::add") for name in ("b", "c")}
    caller = world["a"].peer("caller", kind="client")
    for number in range(4):
        world["a"].call(caller, "math::add", f"c{number}")
    world.run()
    assert [len(world[name].calls_of(worker)) for name, worker in workers.items()] == [2, 2]


def test_a_function_that_is_withdrawn_or_whose_worker_leaves_is_not_found_any_more(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["b"].router.peer_table.detach(worker)
    world.run()
    world["a"].call(caller, "math::add")
    assert world["a"].error(caller)["code"] == "function_not_found"


def test_a_call_that_comes_when_the_function_has_just_gone_goes_to_another_engine(world: World) -> None:
    gone = world.serve("b", "math", "math::add")
    other = world.serve("c", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add")
    world["a"].call(caller, "math::add", "c2")
    world["b"].router.peer_table.detach(gone)
    world.run()
    assert sorted(world["c"].calls_of(other)) == ["c1", "c2"]
    # It comes back: the other engines hear of it again.
    back = world.serve("b", "math", "math::add")
    world["c"].router.peer_table.detach(other)
    world.run()
    world["a"].call(caller, "math::add", "c3")
    world.run()
    assert world["b"].calls_of(back)[-1] == "c3"


def test_a_function_that_was_refused_and_came_back_before_others_were_told_is_called_again(world: World) -> None:
    gone = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add")
    world["b"].router.peer_table.detach(gone)
    world.carry()
    assert world["a"].error(caller)["code"] == "function_not_found"
    back = world.serve("b", "math", "math::add")
    world["a"].call(caller, "math::add", "c2")
    world.run()
    assert world["b"].calls_of(back) == ["c2"]


def test_functions_of_namespaces_keep_theirs(world: World) -> None:
    worker = world["b"].peer("math", namespace="lab")
    world["b"].register(worker, "math::add")
    world.run()
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add")
    assert world["a"].error(caller)["code"] == "function_not_found"
    world["a"].call(caller, "math::add", "c2", namespace="lab")
    world.run()
    assert "namespace" not in world["b"].one(worker)
    world["b"].answer(worker, "c2", result=7)
    world.run()
    assert world["a"].one(caller)["result"] == 7


def test_errors_come_back_with_code_and_details(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add")
    world.run()
    world["b"].answer(worker, error={"code": "sold_out", "message": "none left", "details": {"hotel": 7}})
    world.run()
    error = world["a"].error(caller)
    assert (error["code"], error["details"]) == ("sold_out", {"hotel": 7})


def test_a_void_call_is_run_and_its_caller_is_told_nothing(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].void(caller, "math::add")
    world.run()
    (id,) = world["b"].calls_of(worker)
    world["b"].answer(worker, id)
    world.run()
    assert world["a"].got(caller) == []
    assert not world["a"].router.calls.in_flight


def test_the_callee_has_the_time_that_is_left_and_a_timeout_is_the_callers(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add", deadline_ms=5000)
    world["a"].now += 2
    world.run()
    (invocation,) = world["b"].router.calls.in_flight.values()
    assert invocation.timeout == pytest.approx(3.0)
    world["a"].later(3.1)
    assert world["a"].error(caller)["code"] == "TIMEOUT"
    world.run()
    assert [message["type"] for message in world["b"].got(worker)] == ["invokefunction", "cancel"]


def test_a_caller_that_gives_up_cancels_the_call_on_the_other_engine(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add")
    world.run()
    world["a"].send(caller, "cancel", invocation_id="c1")
    world.run()
    assert [message["type"] for message in world["b"].got(worker)] == ["invokefunction", "cancel"]


def test_items_of_a_stream_come_in_order_and_the_caller_gives_credit(world: World) -> None:
    worker = world.serve("b", "math", "math::count")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::count", stream=True, window=2)
    world.run()
    world["b"].got(worker)
    for number in range(3):
        world["b"].send(worker, "invocationitem", invocation_id="c1", item=[number, "x" * 100_000])
    world["b"].answer(worker, result=None)
    world["a"].send(caller, "itemstaken", invocation_id="c1", count=2)
    world.run()
    got = world["a"].got(caller)
    assert [message["item"][0] for message in got[:3]] == [0, 1, 2]
    assert got[3]["type"] == "invocationresult"


def test_credit_of_the_caller_reaches_the_callee(world: World) -> None:
    worker = world.serve("b", "math", "math::count")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::count", stream=True, window=2)
    world.run()
    world["a"].send(caller, "itemstaken", invocation_id="c1", count=2)
    world.run()
    assert world["b"].got(worker)[1] == {"type": "itemstaken", "invocation_id": "c1", "count": 2}


def test_the_trace_goes_along(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    world["a"].call(caller, "math::add", traceparent=trace, baggage="k=v")
    world.run()
    call = world["b"].one(worker)
    assert call["traceparent"].split("-")[1] == trace.split("-")[1]


def test_a_call_back_to_the_first_engine_is_deeper_and_ends_with_its_parents_deadline(world: World) -> None:
    worker = world.serve("b", "b-worker", "b::outer")
    back = world.serve("a", "a-worker", "a::inner")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "b::outer", deadline_ms=4000)
    world.run()
    world["b"].got(worker)
    world["b"].call(worker, "a::inner", "c2", caller={"invocation_id": "c1"})
    world.run()
    inner = world["a"].router.calls.in_flight["c2"]
    assert (inner.depth, inner.chain) == (2, ["b::outer", "a::inner"])
    assert inner.deadline == pytest.approx(world["a"].router.calls.in_flight["c1"].deadline)
    world["a"].answer(back, "c2", result=1)
    world.run()
    assert world["b"].one(worker)["result"] == 1


def test_a_large_call_and_result_pass_in_pieces(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add", data="x" * 3_000_000)
    world.run()
    assert len(world["b"].one(worker)["data"]) == 3_000_000
    world["b"].answer(worker, result="y" * 3_000_000)
    world.run()
    assert len(world["a"].one(caller)["result"]) == 3_000_000


def test_another_schema_of_a_function_that_is_used_is_refused_until_the_first_one_goes(world: World) -> None:
    first = world.serve("b", "math", "math::add", request_format={"type": "object"})
    second = world.serve("c", "math", "math::add", request_format={"type": "array"})
    assert "function_conflict" in world["a"].notices()
    caller = world["a"].peer("caller", kind="client")
    for number in range(3):
        world["a"].call(caller, "math::add", f"c{number}", data={})
    world.run()
    assert len(world["b"].calls_of(first)) == 3
    world["b"].router.peer_table.detach(first)
    world.run()
    world.run()
    world["a"].call(caller, "math::add", "d1", data=[])
    world.run()
    assert world["c"].calls_of(second) == ["d1"]


def test_a_standard_worker_that_runs_on_two_engines_is_told_once_on_each(world: World) -> None:
    world.serve("b", "state", "state::get", "state::set")
    assert world["a"].notices() == []
    here = world.serve("a", "state", "state::get", "state::set")
    world["a"].others["b"].tell_separate()
    world.run()
    assert world["a"].notices() == world["b"].notices() == ["separate_worker"]
    (text,) = world["a"].others["b"].separate.values()
    assert text == "state runs on this engine and on b, each by itself: choose one with `only`"
    world["a"].router.peer_table.detach(here)
    world["a"].others["b"].tell_separate()
    assert not world["a"].others["b"].separate


def test_functions_of_sessions_are_not_told(world: World) -> None:
    session = world["b"].peer("session")
    session.owner.rights = _Anything()
    world["b"].register(session, "math::add")
    world.run()
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add")
    assert world["a"].error(caller)["code"] == "function_not_found"


def test_a_session_cannot_ask_another_engine_for_itself_and_a_worker_can(world: World) -> None:
    engine = world["b"].peer("engine", kind="engine")
    world["b"].register(engine, "engine::workers::stop")
    world.run()
    session = world["a"].peer("session")
    session.owner.rights = _Anything()
    world["a"].call(session, "engine::workers::stop", namespace="engine:b")
    world.run()
    assert world["a"].error(session)["code"] == "FORBIDDEN"
    assert world["b"].got(engine) == []
    world["a"].call(world["a"].peer("worker"), "engine::workers::stop", "c2", namespace="engine:b")
    world.run()
    assert world["b"].calls_of(engine) == ["c2"]


class _Anything:
    def refusal(self, message: object) -> None:
        return None

    def may_invoke(self, namespace: str, function_id: str) -> bool:
        return True

    may_bind_to = may_invoke


# An engine dies


def started_call(world: World, **fields: object) -> None:
    """Let a caller of engine a have a call run on engine b."""
    worker = world.serve("b", "math", "math::add", **fields)
    caller = world["a"].peer("caller", kind="client")
    world["a"].call(caller, "math::add")
    world.run()
    assert world["b"].calls_of(worker) == ["c1"]


def lose(world: World, lost: str = "b") -> RemoteEngine:
    world.cut.add(lost)
    other = world["a"].others.pop(lost)
    other.give_up(DEAD)
    return other


def test_a_call_that_ran_on_a_dead_engine_ends_with_what_is_known_and_is_not_repeated(world: World) -> None:
    started_call(world)
    other = world.serve("c", "math", "math::add")
    lose(world)
    world.run()
    error = world["a"].error(world["a"].router.peer_table.peers["caller"])
    assert error["code"] == "invocation_stopped"
    assert error["details"]["reason"] == "worker_exited"
    assert (error["details"]["started"], error["details"]["engine"]) == (True, "b")
    assert world["c"].calls_of(other) == []


def test_an_idempotent_call_is_repeated_on_another_engine(world: World) -> None:
    started_call(world, metadata={"idempotent": True})
    other = world.serve("c", "math", "math::add", metadata={"idempotent": True})
    lose(world)
    world.run()
    assert world["c"].calls_of(other) == ["c1"]


def test_an_idempotent_call_without_another_engine_ends_as_stopped(world: World) -> None:
    started_call(world, metadata={"idempotent": True})
    lose(world)
    assert world["a"].error(world["a"].router.peer_table.peers["caller"])["code"] == "invocation_stopped"


def test_a_call_that_certainly_did_not_arrive_goes_to_another_engine_whatever_it_is(world: World) -> None:
    world.serve("b", "math", "math::add")
    other = world.serve("c", "math", "math::add")
    world["c"].call(world["c"].peer("busy", kind="client"), "math::add", "x")  # so that b is preferred
    caller = world["a"].peer("caller", kind="client")
    world.cut.add("b")
    remote = world["a"].others["b"]
    before = remote.link.sent
    world["a"].call(caller, "math::add")
    world["a"].flush()
    remote.link.frames()  # sent, and a server says: nobody received it
    remote.undelivered = before + 1
    del world["a"].others["b"]
    remote.give_up(DEAD)
    world.run()
    assert world["c"].calls_of(other)[-1:] == ["c1"]


def test_a_call_that_did_not_arrive_at_the_only_engine_says_that_it_was_not_started(world: World) -> None:
    world.serve("b", "math", "math::add")
    caller = world["a"].peer("caller", kind="client")
    world.cut.add("b")
    world["a"].call(caller, "math::add")
    world["a"].flush()
    world["a"].others.pop("b").give_up(DEAD)
    error = world["a"].error(caller)
    assert (error["code"], error["details"]["started"], error["retryable"]) == ("worker_unavailable", False, True)


def test_what_a_dead_engine_had_called_here_is_cancelled(world: World) -> None:
    worker = world.serve("a", "math", "math::add")
    caller = world["b"].peer("caller", kind="client")
    world["b"].call(caller, "math::add")
    world.run()
    assert world["a"].calls_of(worker) == ["c1"]
    lose(world)
    assert [message["type"] for message in world["a"].got(worker)] == ["cancel"]


def test_a_result_of_an_engine_that_was_given_up_is_dropped_and_counted(world: World) -> None:
    started_call(world)
    lose(world)
    caller = world["a"].router.peer_table.peers["caller"]
    world["a"].got(caller)
    back = world["a"].meet("b", generation=2)
    line = json.dumps({"type": "invocationresult", "invocation_id": "c1", "result": 1}).encode()
    back.receive([b"\x02" + line])
    assert world["a"].got(caller) == []
    assert world["a"].router.calls.counters["unknown_result"] == 1


def test_an_engine_that_reads_nothing_gets_no_new_calls(world: World) -> None:
    world.serve("b", "math", "math::add")
    world.cut.add("b")
    caller = world["a"].peer("caller", kind="client")
    codes = []
    for number in range(14):
        world["a"].call(caller, "math::add", f"c{number}", data="x" * 1_000_000)
        world["a"].flush()
        codes += [message["error"]["code"] for message in world["a"].got(caller)]
    assert codes
    assert set(codes) == {"overloaded"}


def test_what_waits_for_another_engine_counts_in_the_budget_until_it_is_taken_or_the_engine_goes(world: World) -> None:
    worker = world.serve("b", "math", "math::add")
    budget = world["b"].router.calls.budget
    caller = world["a"].peer("caller", kind="client")
    for id in ("c1", "c2"):
        world["a"].call(caller, "math::add", id)
        world.run()
    before = budget.counted
    world.cut.add("a")
    world["b"].answer(worker, result="x" * 3_000_000)
    world["b"].flush()
    assert budget.counted > before + 3_000_000
    assert not world["b"].others["a"].reads_nothing
    budget.resize(5_000_000)
    assert world["b"].others["a"].reads_nothing
    world["b"].others.pop("a").give_up(DEAD)
    world["b"].flush()
    assert budget.counted < before + 10_000


def test_bytes_that_no_engine_sends_are_counted_and_change_nothing(world: World) -> None:
    other = world["a"].others["b"]
    other.receive([b"", b"\xff", b"\x01x", b"\x01" + b"\0" * 12, b"\x02{", b"\x03nothing", b"\x04[]"])
    assert world["a"].router.calls.counters["unknown_type"] >= 2
    assert world["a"].notices()[-1] == "invalid_message"
