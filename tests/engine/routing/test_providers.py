"""Trigger types and actions of workers with several processes, and of workers that restart."""

from __future__ import annotations

import pytest

from iii.engine.routing.peer import Peer
from tests.support.routing import Net


def clock(net: Net, instance: int = 1, generation: int = 1) -> Peer:
    """A process of a worker that provides a type and an action."""
    peer = net.worker("clock", generation, instance)
    net.send(peer, "registertriggertype", id="tick", description="")
    net.register(peer, "action::delay")
    net.send(peer, "registeraction", id="delay", function_id="action::delay")
    net.router.peer_table.promote(peer)
    return peer


def heard(net: Net, peer: Peer) -> list[tuple[str, str]]:
    return [(message["type"], message["id"]) for message in net.got(peer) if "trigger_type" in message]


def delayed(net: Net, caller: Peer, id: str = "c1") -> None:
    net.call(caller, "f", id, action={"type": "delay", "seconds": 1})


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_a_type_outlives_any_one_of_the_processes_that_provide_it(net: Net, first_to_leave: int) -> None:
    processes = [clock(net, instance) for instance in (1, 2)]
    net.bind(net.peer("shop"), type="tick")
    left, stays = processes[first_to_leave], processes[1 - first_to_leave]
    before = heard(net, stays)
    net.router.peer_table.detach(left)
    assert before + heard(net, stays) == [("registertrigger", "t1")]
    assert [binding.provider for binding in net.router.bindings] == [stays]


def test_a_type_whose_processes_are_all_gone_parks_its_bindings(net: Net) -> None:
    processes = [clock(net, instance) for instance in (1, 2, 3)]
    net.bind(net.peer("shop"), type="tick")
    for process in processes:
        net.router.peer_table.detach(process)
    assert net.router.bindings.types == {}
    assert [binding.provider for binding in net.router.bindings] == [None]


def test_a_process_that_withdraws_its_type_leaves_it_to_the_others(net: Net) -> None:
    first, second = clock(net, 1), clock(net, 2)
    net.bind(net.peer("shop"), type="tick")
    heard(net, first), heard(net, second)
    net.send(second, "unregistertriggertype", id="tick")
    assert heard(net, second) == [("unregistertrigger", "t1")]
    assert heard(net, first) == [("registertrigger", "t1")]
    net.send(first, "unregistertriggertype", id="tick")
    assert heard(net, first) == [("unregistertrigger", "t1")]


def test_a_new_generation_takes_the_type_over_and_the_old_one_never_gets_it_back(net: Net) -> None:
    old = clock(net)
    net.bind(net.peer("shop"), type="tick")
    new = clock(net, generation=2)
    net.router.peer_table.retire(old)
    heard(net, old), heard(net, new)
    net.router.peer_table.detach(new)
    assert heard(net, old) == []


def test_a_provider_of_another_worker_replaces_and_leaves_nothing_behind(net: Net) -> None:
    mine, other = clock(net), net.peer("other")
    net.send(other, "registertriggertype", id="tick", description="")
    net.bind(net.peer("shop"), type="tick")
    assert heard(net, other) == [("registertrigger", "t1")]
    net.router.peer_table.detach(other)
    assert heard(net, mine) == []


@pytest.mark.parametrize("first_to_leave", [0, 1])
def test_an_action_outlives_any_one_of_the_processes_that_provide_it(net: Net, first_to_leave: int) -> None:
    processes = [clock(net, instance) for instance in (1, 2)]
    net.router.peer_table.detach(processes[first_to_leave])
    delayed(net, net.peer("caller"))
    assert net.calls_of(processes[1 - first_to_leave]) == ["c1"]


def test_a_call_with_an_action_waits_while_its_worker_restarts(net: Net) -> None:
    caller = net.peer("caller")
    net.router.peer_table.detach(clock(net))
    delayed(net, caller)
    assert net.got(caller) == []
    assert net.calls_of(clock(net, generation=2)) == ["c1"]


def test_a_call_with_an_action_of_a_worker_that_is_down_says_so(net: Net) -> None:
    caller = net.peer("caller")
    net.router.peer_table.detach(clock(net))
    net.router.peer_table.refuse_calls("clock", {"state": "failed", "words": "it crashed"})
    delayed(net, caller)
    assert net.error(caller)["code"] == "worker_unavailable"


def test_an_action_that_a_new_generation_lacks_is_unknown(net: Net) -> None:
    caller, old = net.peer("caller"), clock(net)
    net.serving("clock", generation=2)
    net.router.peer_table.retire(old)
    delayed(net, caller)
    assert net.error(caller)["code"] == "action_not_found"


def test_an_action_that_a_restarted_worker_lacks_is_unknown(net: Net) -> None:
    caller = net.peer("caller")
    net.router.peer_table.detach(clock(net))
    net.serving("clock", generation=2)
    delayed(net, caller)
    assert net.error(caller)["code"] == "action_not_found"


def test_an_action_goes_with_a_worker_that_nobody_restarts(net: Net) -> None:
    caller, own = net.peer("caller"), net.peer("own")
    net.register(own, "action::delay")
    net.send(own, "registeraction", id="delay", function_id="action::delay")
    net.router.peer_table.detach(own)
    delayed(net, caller)
    assert net.error(caller)["code"] == "action_not_found"


def test_a_removed_worker_takes_its_actions_along(net: Net) -> None:
    caller = net.peer("caller")
    net.router.peer_table.detach(clock(net))
    net.router.peer_table.forget("clock")
    delayed(net, caller)
    assert net.error(caller)["code"] == "action_not_found"


def test_an_unregistered_action_stays_with_the_other_processes(net: Net) -> None:
    caller, first, second = net.peer("caller"), clock(net, 1), clock(net, 2)
    net.send(second, "unregisteraction", id="delay")
    net.send(net.peer("stranger"), "unregisteraction", id="delay")
    delayed(net, caller)
    assert net.calls_of(first) + net.calls_of(second) == ["c1"]
    net.send(first, "unregisteraction", id="delay")
    delayed(net, caller, "c2")
    assert net.error(caller)["code"] == "action_not_found"
