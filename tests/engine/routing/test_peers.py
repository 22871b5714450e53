"""Peers come, change and leave: what becomes of the calls they run, made, or were given."""

from __future__ import annotations

from typing import Any

import pytest

from iii.engine.routing.events import WorkersChanged
from iii.engine.routing.peer import Peer
from tests.support.routing import Net, limits


def test_the_first_message_tells_a_peer_its_id_and_its_place(net: Net) -> None:
    owner = net.router.peer_table.owner_of("w")
    peer = Peer("id1", kind="worker", owner=owner, generation=3, instance=2, reattach_token="secret")
    net.router.peer_table.attach(peer)
    assert net.one(peer) == {
        "type": "workerregistered",
        "worker_id": "id1",
        "reattach_token": "secret",
        "generation": 3,
        "instance": 2,
        "features": ["observe.v1", "local-dispatch.v1"],
    }
    engine = Peer("engine", kind="engine")
    net.router.peer_table.attach(engine)
    assert net.got(engine) == []


def test_workers_coming_and_going_are_told_and_clients_are_not(net: Net, caller: Peer) -> None:
    worker = net.peer("w")
    for peer in (worker, caller, worker):
        net.router.peer_table.detach(peer)
    events = [event for event in net.router.events if isinstance(event, WorkersChanged)]
    assert events == [WorkersChanged("worker_connected", "w"), WorkersChanged("worker_disconnected", "w")]


# Death


def test_a_started_call_ends_with_how_its_worker_died(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "f")
    net.call(caller, "f")
    net.got(worker)
    net.router.peer_table.detach(worker, {"words": "killed by SIGKILL", "signal": 9})
    error = net.error(caller)
    assert error["code"] == "invocation_stopped"
    assert error["details"] == {
        "reason": "worker_exited",
        "started": True,
        "worker": "w",
        "words": "killed by SIGKILL",
        "signal": 9,
    }
    assert (caller.outgoing, net.router.calls.in_flight) == (0, {})


def test_what_was_not_wholly_written_runs_on_the_next_generation_in_order(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "f")
    net.got(worker)
    for id in ("a", "b", "c"):
        net.call(caller, "f", id)
    size = len(worker.outbox[0]) + 1
    net.write(worker, size + size - 1)  # all of the first line, all but the newline of the second
    net.router.peer_table.detach(worker)
    assert net.one(caller)["invocation_id"] == "a"
    net.call(caller, "f", "d")
    assert net.got(caller) == []
    assert net.calls_of(net.serving("w", "f", generation=2)) == ["b", "c", "d"]


def test_a_started_call_of_an_idempotent_function_runs_again_three_times_at_most(net: Net, caller: Peer) -> None:
    def life(generation: int) -> Peer:
        peer = net.worker("w", generation)
        net.register(peer, "f", metadata={"idempotent": True})
        net.router.peer_table.promote(peer)
        return peer

    worker = life(1)
    net.call(caller, "f")
    for generation in (2, 3):
        assert net.calls_of(worker) == ["c1"]
        net.router.peer_table.detach(worker)
        worker = life(generation)
    assert net.calls_of(worker) == ["c1"]
    assert net.got(caller) == []
    net.router.peer_table.detach(worker)
    assert net.error(caller)["code"] == "invocation_stopped"


def test_a_call_unread_by_one_instance_goes_to_another(net: Net, caller: Peer) -> None:
    first, second = net.serving("w", "f"), net.serving("w", "f", instance=2)
    net.call(caller, "f")
    net.router.peer_table.detach(first)
    assert net.calls_of(second) == ["c1"]
    net.answer(first)
    assert net.got(caller) == []
    net.answer(second)
    assert net.one(caller)["result"] == "ok"


def test_the_calls_of_a_dead_caller_are_cancelled_and_leave_the_queues(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "f", concurrency=1)
    net.call(caller, "f", "runs")
    net.call(caller, "f", "waits")
    net.got(worker)
    net.router.peer_table.detach(caller)
    assert net.one(worker) == {"type": "cancel", "invocation_id": "runs"}
    net.answer(worker, "runs")
    assert (net.got(worker), worker.busy, net.router.calls.in_flight) == ([], 0, {})


def test_a_peer_that_calls_itself_and_dies_leaves_nothing(net: Net) -> None:
    worker = net.peer("w")
    net.register(worker, "f")
    net.call(worker, "f")
    net.call(worker, "f", "c2")
    net.write(worker)
    net.router.peer_table.detach(worker)
    net.router.peer_table.detach(worker)
    assert (net.router.calls.in_flight, list(net.router.registry), worker.outbox) == ({}, [], [])


def test_an_abandoned_call_dies_with_its_callee_without_a_word(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "f")
    net.call(caller, "f")
    net.send(caller, "cancel", invocation_id="c1")
    net.router.peer_table.detach(worker)
    assert (net.got(caller), net.router.calls.in_flight) == ([], {})


def test_a_void_call_lost_with_its_worker_leaves_a_trace(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "f")
    net.void(caller, "f")
    net.write(worker)
    net.router.peer_table.detach(worker)
    assert net.failures() == [("f", True)]


# Starting


def test_calls_to_functions_not_known_yet_wait_while_workers_start(net: Net, caller: Peer) -> None:
    net.router.peer_table.expect("w")
    net.router.peer_table.expect("v")
    net.call(caller, "f", "a")
    net.call(caller, "nothing", "b")
    net.call(caller, "f", "c")
    assert net.calls_of(net.serving("w", "f")) == ["a", "c"]
    assert net.got(caller) == []
    net.router.peer_table.refuse_calls("v", {"state": "failed"})
    error = net.error(caller)
    assert error["code"] == "function_not_found"


def test_calls_to_functions_not_known_yet_are_bounded_and_can_be_cancelled(caller: Peer) -> None:
    net = Net(limits=limits(waiting_per_function=1))
    caller = net.peer("caller")
    net.router.peer_table.expect("w")
    net.call(caller, "f", "a")
    net.call(caller, "f", "b")
    assert net.error(caller)["code"] == "overloaded"
    net.send(caller, "cancel", invocation_id="a")
    net.call(caller, "f", "c")
    assert list(net.router.calls.unresolved) == [net.router.calls.in_flight["c"]]


# Reload


def test_a_new_generation_serves_only_once_it_is_promoted(net: Net, caller: Peer) -> None:
    old, new = net.serving("w", "f"), net.worker("w", 2)
    net.register(new, "f", "g")
    net.call(caller, "f", "a")
    net.call(caller, "g", "b")
    assert net.error(caller)["code"] == "function_not_found"
    net.router.peer_table.promote(new)
    net.router.peer_table.retire(old)
    net.call(caller, "f", "c")
    net.call(caller, "g", "d")
    assert (net.calls_of(old), net.calls_of(new)) == (["a"], ["c", "d"])
    assert net.drained() == []
    net.answer(old, "a")
    assert net.one(caller)["result"] == "ok"
    assert net.drained() == [old]


def test_an_idle_generation_is_drained_at_once_and_only_once(net: Net) -> None:
    old = net.serving("w", "f")
    net.serving("w", "f", generation=2)
    net.router.peer_table.retire(old)
    net.router.peer_table.retire(old)
    assert net.drained() == [old]


def test_a_call_that_was_given_up_holds_up_no_retired_generation(net: Net, caller: Peer) -> None:
    old = net.serving("w", "f")
    net.call(caller, "f", "before")
    net.call(caller, "f", "after")
    net.send(caller, "cancel", invocation_id="before")
    net.router.peer_table.retire(old)
    assert net.drained() == []
    net.send(caller, "cancel", invocation_id="after")
    assert net.drained() == [old]
    net.answer(old, "before")  # late, and news to nobody
    assert net.drained() == [old]
    assert (old.busy, old.owed) == (1, 0)


def test_a_retired_generation_registers_nothing_any_more(net: Net) -> None:
    old = net.serving("w", "f")
    net.serving("w", "f", generation=2)
    net.router.peer_table.retire(old)
    net.register(old, "late")
    assert net.router.registry.find("default", "late") is None


def test_what_the_new_code_dropped_fails_for_those_who_wait_and_finishes_for_those_who_run(
    net: Net, caller: Peer
) -> None:
    old = net.serving("w", "f", "g", concurrency=1)
    net.call(caller, "g", "runs")
    net.call(caller, "g", "waits")
    new = net.serving("w", "f", generation=2, concurrency=1)
    net.router.peer_table.retire(old)
    error = net.error(caller)
    assert error["code"] == "function_not_found"
    assert "removed by reload" in error["message"]
    net.answer(old, "runs")
    assert net.one(caller)["result"] == "ok"
    assert new.busy == 0


def test_a_generation_that_fails_before_it_serves_touches_nothing(net: Net, caller: Peer) -> None:
    old, new = net.serving("w", "f"), net.worker("w", 2)
    net.register(new, "f")
    net.router.peer_table.detach(new)
    net.call(caller, "f")
    assert net.calls_of(old) == ["c1"]
    broken = net.worker("w", 3)
    net.router.peer_table.retire(broken)
    assert net.drained() == [broken]


def test_while_a_worker_is_replaced_its_calls_and_bindings_wait(net: Net, caller: Peer) -> None:
    clock = net.peer("clock")
    net.send(clock, "registertriggertype", id="cron", description="")
    old = net.worker("w")
    net.register(old, "f")
    net.bind(old, "t1")
    net.router.peer_table.promote(old)
    net.got(clock)
    net.router.peer_table.expect("w")
    net.router.peer_table.retire(old)
    net.router.peer_table.detach(old)
    net.call(caller, "f")
    new = net.worker("w", 2)
    net.register(new, "f")
    net.bind(new, "t2")
    net.router.peer_table.promote(new)
    assert net.calls_of(new) == ["c1"]
    assert net.got(clock) == []


# Down


def test_calls_to_a_worker_that_is_down_fail_with_its_last_words(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "f")
    net.router.peer_table.detach(worker)
    net.call(caller, "f", "waits")
    net.router.peer_table.refuse_calls("w", {"state": "failed", "words": "SyntaxError", "stderr": ["x"]})
    net.call(caller, "f", "late")
    for message in net.got(caller):
        assert message["error"]["code"] == "worker_unavailable"
        assert "SyntaxError" in message["error"]["message"]
        assert message["error"]["details"]["stderr"] == ["x"]
    net.router.peer_table.expect("w")
    net.call(caller, "f", "again")
    assert net.calls_of(net.serving("w", "f", generation=2)) == ["again"]


def test_calls_that_wait_for_a_refused_worker_end_with_its_last_process(net: Net, caller: Peer) -> None:
    worker = net.serving("w", "f", concurrency=1)
    net.call(caller, "f", "runs")
    net.call(caller, "f", "waits")
    net.router.peer_table.refuse_calls("w", {"state": "stopped"})
    net.router.peer_table.retire(worker)
    answer = net.one(caller)
    assert (answer["invocation_id"], answer["error"]["code"]) == ("waits", "worker_unavailable")


def test_a_failed_worker_that_is_no_longer_declared_leaves_no_function_behind(net: Net) -> None:
    net.router.peer_table.detach(net.serving("w", "f"))
    net.router.peer_table.refuse_calls("w", {"state": "failed"})
    net.router.peer_table.forget("w")
    assert list(net.router.registry) == []


@pytest.mark.parametrize("order", ["after its process left", "while its process serves"])
def test_a_worker_that_is_no_longer_declared_takes_its_functions_along(net: Net, caller: Peer, order: str) -> None:
    worker = net.serving("w", "f", "g", concurrency=1)
    net.send(worker, "unregisterfunction", id="g")
    net.call(caller, "f", "runs")
    net.call(caller, "f", "waits")
    steps: list[Any] = [lambda: net.router.peer_table.detach(worker), lambda: net.router.peer_table.forget("w")]
    for step in steps if order.startswith("after") else reversed(steps):
        step()
    codes = {message["invocation_id"]: message["error"]["code"] for message in net.got(caller)}
    assert codes["waits"] == "function_not_found"
    assert (list(net.router.registry), net.router.peer_table.owners, net.router.calls.in_flight) == ([], {}, {})
    net.router.peer_table.forget("w")
