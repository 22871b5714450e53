"""What caused a call goes along with it, over events, jobs and bridges; and chains that repeat too fast are stopped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.engine.routing.causes import (
    ACTION,
    CAUSES,
    EVENT_BURST,
    EVENT_RATE,
    JOB_BURST,
    JOB_RATE,
    MAX_CHAINS,
    MAX_FUNCTIONS,
    MAX_NAMES,
    NONE,
    QUIET_TIMEOUT,
    Causes,
    Loops,
    causes_from,
    causes_in,
    joined,
    with_causes,
)
from iii.engine.routing.peer import Peer
from tests.support.routing import Net

IDS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)


@given(st.integers(0, 9999), st.lists(st.tuples(IDS, st.text("0123456789abcdef", min_size=8, max_size=8)), max_size=9))
def test_what_is_written_is_read_back(depth: int, functions: list[tuple[str, str]]) -> None:
    causes = NONE
    for id, call_id in functions:
        causes = causes.then("0123abcd", depth, id, call_id)
    assert causes_in(with_causes("tenant=acme", causes)) == causes
    assert "," not in str(causes)


@given(st.text())
def test_any_text_is_causes_or_none(text: str) -> None:
    causes_from(text)
    causes_in(text)


@pytest.mark.parametrize("text", ["", "a", "a.", "a.x", "a.-1", "a.999999", "a.1" + "!00000000f" * 33, "x" * 9999])
def test_what_no_engine_writes_is_none(text: str) -> None:
    assert causes_from(text) is None


def test_the_baggage_keeps_what_else_is_in_it() -> None:
    first = NONE.then("e", 1, "a::f", "1")
    baggage = with_causes("tenant=acme,x=1", first)
    again = with_causes(baggage, first.then("e", 2, "b,g", "2"))
    assert again.startswith("tenant=acme,x=1,iii.causes=")
    assert again.count(CAUSES) == 1
    found = causes_in(again)
    assert found is not None
    assert found.ids == ["a::f", "b,g"]


def test_a_function_is_named_once_with_the_tag_of_its_first_call() -> None:
    first = NONE.then("e", 1, "f", "call 1")
    later = first.then("e", 2, "g", "call 2").then("e", 3, "f", "call 3")
    assert (later.ids, later.depth) == (["f", "g"], 3)
    assert later.tag_of("f") == first.tag_of("f")


def test_the_text_is_bounded() -> None:
    causes = NONE
    for number in range(99):
        causes = causes.then("e", 1, f"service{number}::{'x' * 240}", str(number))
    assert len(causes.names) <= MAX_NAMES
    assert causes_from(str(causes)) == causes
    assert causes.ids[-1].startswith("service98::")
    short = NONE
    for number in range(99):
        short = short.then("e", 1, f"f{number}", str(number))
    assert short.ids == [f"f{number}" for number in range(99 - MAX_FUNCTIONS, 99)]


def test_causes_of_several_calls_are_joined() -> None:
    one, two = NONE.then("e", 1, "f", "1"), NONE.then("e", 1, "g", "2").then("e", 1, "f", "3")
    assert joined([one, two]).ids == ["f", "g"]
    assert joined([one, two]).tag_of("f") == one.tag_of("f")


# Which chains are stopped

LOOP = NONE.then("e", 1, "f", "1").then("e", 1, "state::set", "2")
PAGES = NONE.then("e", 1, "f", "1").then("e", 1, f"{ACTION}enqueue", "2")


def repeat(loops: Loops, causes: Causes, count: int, interval: float, start: float = 0.0) -> int:
    """Call `f` again and again; return how many calls ran before the first one was stopped."""
    for number in range(count):
        if loops.is_stopped("f", causes, start + number * interval)[0]:
            return number
    return count


@pytest.mark.parametrize(
    ("causes", "count", "interval", "runs"),
    [
        (LOOP, 10_000, 0.0, EVENT_BURST),
        (LOOP, 10_000, 0.001, EVENT_BURST + 2),
        (LOOP, EVENT_BURST, 0.0, EVENT_BURST),  # the steps of a finite work
        (LOOP, 10_000, 1 / EVENT_RATE + 0.001, 10_000),  # slow enough to go on for ever
        (PAGES, 10_000, 0.0, JOB_BURST),
        (PAGES, 1_000, 0.0, 1_000),  # a thousand pages at once
        (PAGES, 10_000, 1 / JOB_RATE + 0.001, 10_000),
        (NONE, 10_000, 0.0, 10_000),
        (NONE.then("e", 1, "g", "1"), 10_000, 0.0, 10_000),  # caused by others, as often as they like
    ],
)
def test_loops_are_told_from_work_by_their_rate(causes: Causes, count: int, interval: float, runs: int) -> None:
    assert repeat(Loops(), causes, count, interval) == runs


def test_chains_that_began_with_different_calls_do_not_count_together() -> None:
    loops = Loops()
    for start in range(50):
        causes = NONE.then("e", 1, "f", f"first call {start}")
        assert repeat(loops, causes, EVENT_BURST, 0.0) == EVENT_BURST


def test_a_stopped_chain_stays_stopped_until_it_was_quiet() -> None:
    loops = Loops()
    repeat(loops, LOOP, 1000, 0.0)
    assert loops.is_stopped("f", LOOP, 5.0) == (True, False)
    assert loops.is_stopped("f", LOOP, 5.0 + QUIET_TIMEOUT - 1) == (True, False)  # a job that is tried again
    assert loops.is_stopped("f", LOOP, 4.0 + 2 * QUIET_TIMEOUT + 1) == (False, False)


def test_chains_are_remembered_within_a_bound() -> None:
    loops = Loops()
    for number in range(MAX_CHAINS + 10):
        loops.is_stopped("f", NONE.then("e", 1, "f", str(number)), 0.0)
    assert len(loops) == MAX_CHAINS


# How they travel


def causes_of(line: dict[str, Any]) -> Causes:
    found = causes_in(line.get("baggage"))
    assert found is not None, line
    return found


def nested(net: Net, peer: Peer, function: str, parent: str, id: str, **fields: Any) -> None:
    """A call that `peer` makes while it runs the call `parent`."""
    net.call(peer, function, id, caller={"invocation_id": parent, "function_id": "?"}, **fields)


@pytest.fixture
def store(net: Net) -> Peer:
    """A worker that provides `state::set`, and fires events later."""
    store = net.peer("state")
    net.register(store, "state::set")
    return store


@pytest.fixture
def worker(net: Net) -> Peer:
    worker = net.peer("w")
    net.register(worker, "w::f", "w::g")
    return worker


def test_a_call_that_nothing_led_to_is_passed_on_as_it_is(net: Net, caller: Peer, store: Peer) -> None:
    net.call(caller, "state::set", data={"k": 1})
    assert "baggage" not in net.one(store)


def test_a_call_in_a_call_names_what_led_to_it(net: Net, caller: Peer, store: Peer, worker: Peer) -> None:
    net.call(caller, "w::f", "a")
    nested(net, worker, "w::g", "a", "b", data=1)
    nested(net, worker, "state::set", "b", "c", data=2, metadata={"m": 1})
    got = net.one(store)
    assert (causes_of(got).ids, causes_of(got).depth) == (["w::f", "w::g", "state::set"], 3)
    assert (got["data"], got["metadata"]) == (2, {"m": 1})


def test_an_event_continues_the_causes_and_nobody_waits_for_it(
    net: Net, caller: Peer, store: Peer, worker: Peer
) -> None:
    net.call(caller, "w::f", "a")
    nested(net, worker, "state::set", "a", "b")
    baggage = net.one(store)["baggage"]
    net.answer(store, "b")
    net.answer(worker, "a")
    net.got(worker)
    net.call(store, "w::g", "event", baggage=baggage)
    found = causes_of(net.one(worker))
    assert (found.ids, found.depth) == (["w::f", "state::set", "w::g"], 1)


def test_a_job_continues_the_causes_also_when_the_queue_is_the_only_provider(net: Net, caller: Peer) -> None:
    worker, queue = net.peer("w"), net.peer("queue")
    net.register(worker, "w::f")
    net.register(queue, "engine::queue::enqueue")
    net.call(caller, "w::f", "a")
    nested(net, worker, "w::f", "a", "b", action={"type": "enqueue", "queue": "q"})
    job = causes_of(net.one(queue)["data"])
    assert job.ids == ["w::f", "action enqueue"]
    assert job.is_handed_on


def event_loop(net: Net, store: Peer, worker: Peer, *, is_void: bool = False) -> int:
    """Let `w::f` and the event of its write call each other; return how often `w::f` ran."""
    baggage, runs = None, 0
    while runs < 1000:
        runs += 1
        fields = {"baggage": baggage} if baggage else {}
        if is_void:
            net.void(store, "w::f", **fields)
        else:
            net.call(store, "w::f", f"event{runs}", **fields)
        [id] = net.calls_of(worker) or [""]
        if not id:
            return runs - 1
        nested(net, worker, "state::set", id, f"write{runs}")
        baggage = net.one(store)["baggage"]
        net.answer(worker, id)
        net.answer(store, f"write{runs}")
        net.got(worker)
        net.got(store)
    return runs


def test_a_loop_of_events_is_stopped_with_one_line_that_names_it(net: Net, store: Peer, worker: Peer) -> None:
    assert event_loop(net, store, worker) == EVENT_BURST + 1  # the first one does not repeat anything
    error = net.error(store)
    assert error["code"] == "loop_detected"
    assert error["details"]["chain"] == ["w::f", "state::set", "w::f"]
    [notice] = net.router.events[-1:]
    assert "stopped a loop: w::f -> state::set -> w::f" in str(notice)
    assert net.notices() == ["loop_detected"]


def test_nor_does_a_loop_of_calls_that_nobody_waits_for_fill_the_screen(net: Net, store: Peer, worker: Peer) -> None:
    assert event_loop(net, store, worker, is_void=True) == EVENT_BURST + 1
    assert net.notices() == ["loop_detected"]
    assert net.router.calls.budget.used == sum(one.held for one in net.router.registrations.quota)


def test_a_circle_over_two_engines_is_ended_by_the_limit_of_depth(caller: Peer) -> None:
    here, there = Net(), Net()
    caller, local, bridge = here.peer("caller"), here.peer("w"), here.peer("bridge")
    far_bridge = there.peer("bridge")
    here.register(local, "loop::a")
    here.register(bridge, "loop::c")
    there.register(far_bridge, "loop::b")
    here.call(caller, "loop::a", "a0")
    depth = 0
    for circle in range(99):
        arrived = here.got(local)
        if not any("data" in message for message in arrived):
            break
        nested(here, local, "loop::c", f"a{circle}", f"c{circle}")
        passed = [message for message in here.got(bridge) if "data" in message]
        if not passed:
            break
        nested(there, far_bridge, "loop::b", f"c{circle}", f"b{circle}", baggage=passed[0]["baggage"])
        returned = [message for message in there.got(far_bridge) if "data" in message]
        if not returned:
            break
        depth = causes_of(returned[0]).depth
        nested(here, bridge, "loop::a", f"b{circle}", f"a{circle + 1}", baggage=returned[0]["baggage"])
    assert 28 < depth <= 32


def test_a_call_from_a_task_that_outlives_its_call_begins_at_depth_one(net: Net, caller: Peer, worker: Peer) -> None:
    for number in range(40):
        net.call(caller, "w::f", f"a{number}")
        nested(net, worker, "w::g", f"a{number}", f"b{number}")
        baggage = net.got(worker)[1]["baggage"]
        net.answer(worker, f"a{number}")
        nested(net, worker, "w::f", f"a{number}", f"late{number}", baggage=baggage)
        assert causes_of(net.got(worker)[-1]).depth == 1


# What a worker has written


def output_causes(net: Net, now: float) -> list[str] | None:
    found = net.router.calls.causes.of_output("w", 1, 1, now)
    return None if found is None else found.ids


def test_a_line_is_caused_by_the_calls_with_causes_that_its_worker_runs(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "w::f", "w::g")
    net.call(caller, "w::f", "a")
    assert output_causes(net, 0.0) is None  # nothing led to that call
    net.call(caller, "w::g", "b", baggage=f"{CAUSES}={NONE}")
    assert output_causes(net, 0.0) == ["w::g"]
    worker.heard_at = 5.0
    net.answer(worker, "b")
    assert output_causes(net, 5.9) == ["w::g"]
    assert output_causes(net, 6.1) is None
    assert net.router.calls.causes.of_output("other", 1, 1, 0.0) is None


def test_a_call_inside_of_one_with_causes_has_them_too(net: Net, caller: Peer) -> None:
    net.serving("w", "w::f")
    outer = net.peer("outer")
    net.register(outer, "o::f")
    net.call(caller, "o::f", "a", baggage=f"{CAUSES}={NONE}")
    nested(net, outer, "w::f", "a", "b")
    assert output_causes(net, 0.0) == ["o::f", "w::f"]
