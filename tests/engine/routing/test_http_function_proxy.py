"""Functions that live behind a URL: who has them, who runs them, and what becomes of their calls."""

from __future__ import annotations

from typing import Any

import pytest

from iii.engine.routing.events import HttpFunctionRegistered
from iii.engine.routing.http_function_proxy import INVOKE
from iii.engine.routing.peer import Peer
from tests.support.routing import Net

INVOCATION = {"url": "https://api.example/ship"}


@pytest.fixture
def shop(net: Net) -> Peer:
    peer = net.peer("shop")
    net.register(peer, "shop::ship", invocation=INVOCATION)
    return peer


def turn(net: Net) -> None:
    """What the message pump does at the end of a turn: write every outbox; the proxies forward their calls."""
    dirty, net.router.calls.dirty = net.router.calls.dirty, []
    for peer in dirty:
        peer.flush()


def requester(net: Net) -> Peer:
    peer = net.worker("http_functions")
    net.register(peer, INVOKE)
    net.router.peer_table.promote(peer)
    net.got(peer)
    return peer


def test_a_call_goes_to_the_worker_that_makes_requests_and_its_answer_to_the_caller(net: Net, shop: Peer) -> None:
    worker, caller = requester(net), net.peer("caller")
    net.call(caller, "shop::ship", data={"n": 1}, traceparent="00-1-2-01", deadline_ms=5000)
    turn(net)
    call = net.one(worker)
    assert call["invocation_id"] == "c1"
    assert (call["function_id"], call["traceparent"], call["deadline_ms"]) == (INVOKE, "00-1-2-01", 5000)
    assert call["data"] == {
        "function_id": "shop::ship",
        "namespace": "default",
        "invocation": INVOCATION,
        "data": {"n": 1},
        "caller_worker_id": "caller",
    }
    net.answer(worker, result={"ok": True})
    assert net.one(caller)["result"] == {"ok": True}
    assert not net.router.calls.in_flight
    assert net.got(shop) == []


def test_the_function_belongs_to_whoever_registered_it(net: Net, shop: Peer) -> None:
    function = net.router.registry.find("default", "shop::ship")
    assert function is not None
    assert function.owner is shop.owner
    assert function in shop.functions
    other = net.peer("other")
    net.register(other, "shop::ship")
    assert net.one(other)["code"] == "FUNCTION_NAMESPACE_CONFLICT"


def test_a_call_waits_while_the_requesting_worker_restarts(net: Net, shop: Peer) -> None:
    worker, caller = requester(net), net.peer("caller")
    net.router.peer_table.detach(worker)
    net.call(caller, "shop::ship")
    turn(net)
    assert net.got(caller) == []
    again = net.worker("http_functions", generation=2)
    net.register(again, INVOKE)
    net.router.peer_table.promote(again)
    assert [message["function_id"] for message in net.got(again) if "data" in message] == [INVOKE]


def test_a_call_waits_for_a_requesting_worker_that_starts(net: Net, shop: Peer) -> None:
    caller = net.peer("caller")
    net.router.peer_table.expect("http_functions")
    net.call(caller, "shop::ship")
    turn(net)
    assert net.got(caller) == []
    assert len(net.calls_of(_register_late(net))) == 1


def _register_late(net: Net) -> Peer:
    peer = net.worker("http_functions")
    net.register(peer, INVOKE)
    net.router.peer_table.promote(peer)
    return peer


def test_without_a_requesting_worker_the_error_says_how_to_get_one(net: Net, shop: Peer) -> None:
    caller = net.peer("caller")
    net.call(caller, "shop::ship")
    turn(net)
    error = net.error(caller)
    assert error["code"] == "function_not_found"
    assert "iii add http_functions" in error["message"]


@pytest.mark.parametrize("is_placed", [False, True])
def test_a_caller_that_gives_up_leaves_nothing_behind(net: Net, shop: Peer, is_placed: bool) -> None:
    worker, caller = requester(net), net.peer("caller")
    net.call(caller, "shop::ship")
    if is_placed:
        turn(net)
    net.send(caller, "cancel", invocation_id="c1")
    turn(net)
    if is_placed:
        assert [message["type"] for message in net.got(worker)] == ["invokefunction", "cancel"]
        net.answer(worker)
    assert not net.router.calls.in_flight
    assert worker.busy == 0


def test_a_void_call_is_passed_on_too(net: Net, shop: Peer) -> None:
    worker = requester(net)
    net.void(net.peer("caller"), "shop::ship")
    turn(net)
    assert net.one(worker)["function_id"] == INVOKE


@pytest.mark.parametrize("how", ["unregister", "leave"])
def test_the_function_goes_with_its_registration(net: Net, shop: Peer, how: str) -> None:
    if how == "leave":
        net.router.peer_table.detach(shop)
    else:
        net.send(shop, "unregisterfunction", id="shop::ship")
    assert net.router.registry.find("default", "shop::ship") is None
    caller = net.peer("caller")
    net.call(caller, "shop::ship")
    assert net.error(caller)["code"] == "function_not_found"


def test_a_function_may_move_behind_a_url_and_back(net: Net, shop: Peer) -> None:
    worker, caller = requester(net), net.peer("caller")
    net.register(shop, "shop::ship")
    net.call(caller, "shop::ship", "c1")
    assert net.calls_of(shop) == ["c1"]
    net.register(shop, "shop::ship", invocation=INVOCATION)
    net.call(caller, "shop::ship", "c2")
    turn(net)
    assert (net.calls_of(shop), net.calls_of(worker)) == ([], ["c2"])


def test_every_registration_is_told_so_that_it_can_be_checked(net: Net, shop: Peer) -> None:
    events = [event for event in net.router.events if isinstance(event, HttpFunctionRegistered)]
    assert [(event.peer, event.function_id) for event in events] == [(shop, "shop::ship")]


def test_a_loser_that_is_promoted_later_is_relayed_as_well(net: Net) -> None:
    first, second = net.peer("first"), net.peer("second")
    net.register(first, "shop::ship")
    net.register(second, "shop::ship", invocation=INVOCATION)
    net.router.peer_table.detach(first)
    worker, caller = requester(net), net.peer("caller")
    net.call(caller, "shop::ship")
    turn(net)
    assert net.calls_of(worker) == ["c1"]


def test_payloads_are_held_against_the_schema_first() -> None:
    def refuse(_: Any) -> Any:
        return lambda payload: {"message": "no", "path": "$", "expected": 1, "got": 2}

    net = Net(compile_schema=refuse)
    net.register(net.peer("shop"), "shop::ship", invocation=INVOCATION)
    caller = net.peer("caller")
    net.call(caller, "shop::ship")
    assert net.error(caller)["code"] == "invalid_payload"
