"""What is held is released, nothing is left when the engine is idle, and those that hold the most are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.engine.routing.budget import CALL_OVERHEAD, Account, Budget
from iii.engine.routing.calls import MAX_UNREAD
from iii.engine.routing.peer import Peer
from iii.engine.routing.quota import MAX_REGISTRATIONS
from iii.protocol import messages as m
from tests.support.routing import Net

SMALL = 64_000_000
BODY = "x" * 1_000_000

STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100), st.sampled_from(["hold", "release", "set"])))


@given(STEPS)
def test_the_sum_of_holds_is_the_sum_of_releases(steps: list[tuple[int, int, str]]) -> None:
    budget = Budget(SMALL)
    holders = [Account() for _ in range(4)]
    for number, size, step in steps:
        holder = holders[number]
        if step == "release":
            budget.release(holder, min(size, holder.held))
        else:
            getattr(budget, step)(holder, size)
        assert budget.used == sum(one.held for one in holders)
        assert all(one.held >= 0 for one in holders)
    for holder in holders:
        budget.set(holder, 0)
    assert budget.used == 0


@pytest.mark.parametrize(
    ("mine", "others", "peers", "refused"),
    [
        (0, 0, 1, False),
        (SMALL // 8, 0, 1, False),
        (SMALL // 8 + 1, 0, 1, True),  # a single one has its share
        (1000, SMALL, 20, False),  # everything is used up, and this one holds little
        (SMALL // 20 + 1, SMALL, 20, True),
        (0, 2 * SMALL + 1, 20, True),  # what those left behind that are gone
    ],
)
def test_who_is_refused(mine: int, others: int, peers: int, refused: bool) -> None:
    budget, holder = Budget(SMALL), Account()
    budget.peers = peers
    budget.hold(holder, mine)
    budget.hold(Account(), others)
    assert budget.refuses(holder.held) is refused


# Calls


def net_of(memory: int = SMALL) -> Net:
    return Net(budget=Budget(memory))


def used(net: Net) -> int:
    return net.router.calls.budget.used


def test_calls_that_wait_are_held_and_those_beyond_the_share_are_refused() -> None:
    net = net_of()
    caller, callee, other = net.peer("caller"), net.peer("w", concurrency=1), net.peer("other")
    net.register(callee, "f", "g")
    registered = used(net)
    for number in range(20):
        net.call(caller, "f", f"c{number}", data=BODY)
    codes = [message["error"] for message in net.got(caller)]
    assert len(codes) == 12  # eight and what began below the share
    assert codes[0]["code"] == "overloaded"
    assert codes[0]["details"]["memory_bytes"] == SMALL
    refused_with = caller.held_for_calls + CALL_OVERHEAD  # the refused call counted too
    assert codes[0]["details"]["held_bytes"] == refused_with > SMALL // 8
    assert codes[0]["message"] == (
        "the engine holds 8 MB for caller, its share is 8 MB of [engine] memory = 64 MB; "
        "wait for results, then try again"
    )
    net.call(other, "g", "o1")  # it holds nothing yet
    assert net.got(other) == []
    net.later(100)
    # The one call that the callee still runs, without its line: no caller's number counts it any more.
    assert used(net) == registered + 2 * CALL_OVERHEAD
    net.answer(callee, "c0")
    assert used(net) == registered


def test_short_calls_are_bounded_too() -> None:
    net = net_of()
    caller, callee, other = net.peer("caller"), net.peer("w"), net.peer("other")
    net.register(callee, "f")
    most = SMALL // 8 // CALL_OVERHEAD
    for number in range(most + 3):
        net.call(caller, "f", f"c{number}")
    assert caller.held == 0  # not one of them is held by itself
    assert [message["error"]["code"] for message in net.got(caller)] == ["overloaded"] * 3
    net.call(other, "f", "o1")
    assert net.got(other) == []
    net.answer(callee, "c0")
    net.got(caller)
    assert net.router.calls.budget.used > (most - 1) * CALL_OVERHEAD


@pytest.mark.parametrize("end", ["answer", "cancel", "expire", "caller leaves", "callee leaves"])
@pytest.mark.parametrize("concurrency", [None, 1])
def test_however_calls_end_nothing_is_held_for_them(end: str, concurrency: int | None) -> None:
    net = net_of()
    caller, callee = net.peer("caller"), net.peer("w", concurrency=concurrency)
    net.register(callee, "f")
    net.call(caller, "f", "a", data=BODY)
    net.call(caller, "f", "b", data=BODY)
    net.void(caller, "f", data=BODY)
    assert caller.held > 3_000_000
    net.got(callee)
    if end == "cancel":
        net.send(caller, "cancel", invocation_id="a")
        net.send(caller, "cancel", invocation_id="b")
    elif end == "expire":
        net.later(100)
    elif end == "caller leaves":
        net.router.peer_table.detach(caller)
    if end == "callee leaves":
        net.router.peer_table.detach(callee)
    else:
        for _ in range(3):
            for id in list(net.router.calls.in_flight):
                net.answer(callee, id)
        net.router.peer_table.detach(callee)
    assert (used(net), caller.held) == (0, 0)


def test_a_line_that_its_callee_has_read_is_let_go_when_room_is_needed() -> None:
    net = net_of()
    caller, callee = net.peer("caller"), net.peer("w")
    net.register(callee, "f")
    net.register(callee, "again", metadata={"idempotent": True})
    for number in range(30):
        net.call(caller, "f", f"c{number}", data=BODY)
        assert net.calls_of(callee) == [f"c{number}"]  # not one was refused
        net.now += 0.001
    assert caller.held < SMALL // 8 + 2 * MAX_UNREAD
    # Those that may still come back from the pipe of a dead worker keep theirs, and go to another one.
    net.router.peer_table.detach(callee)
    ended = [message["error"]["code"] for message in net.got(caller)]
    assert ended == ["invocation_stopped"] * 30


def test_a_line_that_may_be_sent_again_is_kept() -> None:
    net = net_of()
    caller, callee = net.peer("caller"), net.worker("w")
    net.register(callee, "f", metadata={"idempotent": True})
    net.router.peer_table.promote(callee)
    for number in range(12):
        net.call(caller, "f", f"c{number}", data=BODY)
        net.got(callee)
        net.now += 0.001
    taken = 12 - len(net.got(caller))
    assert taken < 12
    successor = net.worker("w", 2)
    net.register(successor, "f", metadata={"idempotent": True})
    net.router.peer_table.detach(callee)
    net.router.peer_table.promote(successor)
    assert len(net.calls_of(successor)) == taken


def test_the_engines_own_calls_are_never_refused() -> None:
    net = net_of()
    gate, callee = net.peer("gate", kind="engine"), net.peer("w", concurrency=1)
    net.register(callee, "f")
    for number in range(20):
        net.call(gate, "f", f"c{number}", data=BODY)
    assert len(net.router.calls.in_flight) == 20


# Registrations


def registrations() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("registerfunction", {}),
        ("registertrigger", {"trigger_type": "cron", "function_id": "f"}),
        ("registertriggertype", {}),
        ("registeraction", {"function_id": "f"}),
    ]


@pytest.mark.parametrize(("type", "fields"), registrations())
def test_each_kind_of_registration_is_bounded_in_number(type: str, fields: dict[str, Any]) -> None:
    net = Net()
    most = next(count for kind, (_, count) in MAX_REGISTRATIONS.items() if kind.__name__.lower() == type)
    peer = net.peer("w")
    for number in range(most):
        net.send(peer, type, id=f"x{number}", **fields)
    assert net.got(peer) == []
    net.send(peer, type, id="x0", **fields)  # in place of the first one
    for _ in range(3):
        net.send(peer, type, id="beyond", **fields)
    answers = net.got(peer)
    told = [answer.get("reason") or answer["error"]["code"] for answer in answers if "beyond" in str(answer)]
    assert told == ["limit_exceeded"] * 3
    assert net.notices() == ["limit_exceeded"]  # the user hears of the first one
    net.send(peer, f"un{type}", id="x1")
    net.send(peer, type, id="again", **fields)
    assert not any("again" in str(answer) for answer in net.got(peer))
    assert used(net) > most * 1000
    net.router.peer_table.detach(peer)
    assert used(net) == 0


def test_registrations_are_bounded_in_bytes_also_before_they_take_effect() -> None:
    net = net_of()
    peer = net.worker("w")
    for number in range(4):
        net.register(peer, f"f{number}", description=BODY[:900_000])
    assert [message["reason"] for message in net.got(peer)] == ["limit_exceeded"] * 2
    assert len(peer.staged) == 2
    net.router.peer_table.promote(peer)
    net.router.peer_table.detach(peer)
    assert used(net) == 0


def test_the_engine_itself_registers_what_it_likes() -> None:
    net = net_of()
    peer = net.peer("engine", kind="engine")
    net.router.receive(peer, m.RegisterTriggerType("log", BODY * 10), b"", 0.0)
    assert used(net) == 0
    assert isinstance(peer, Peer)
