"""Bindings find their provider, survive reloads and crashes under one id, and go with their last binder."""

from __future__ import annotations

from typing import Any

import pytest

from iii.engine.routing.peer import Peer
from iii.protocol.messages import RegisterTrigger
from tests.support.lines_run import lines_run
from tests.support.routing import Net


def provider(net: Net, name: str = "clock", type: str = "cron", **fields: Any) -> Peer:
    peer = net.peer(name, **fields)
    net.send(peer, "registertriggertype", id=type, description="")
    return peer


def heard(net: Net, peer: Peer) -> list[tuple[str, str]]:
    return [(message["type"], message["id"]) for message in net.got(peer)]


def ids(net: Net) -> list[str]:
    return [binding.id for binding in net.router.bindings]


def test_a_binding_goes_to_its_provider_with_everything_it_must_know(net: Net) -> None:
    clock = provider(net)
    net.bind(net.peer("shop"), config={"expression": "* * *"}, metadata={"k": 1}, namespace="other")
    assert net.one(clock) == {
        "type": "registertrigger",
        "id": "t1",
        "trigger_type": "cron",
        "function_id": "f",
        "config": {"expression": "* * *"},
        "metadata": {"k": 1},
        "namespace": "other",
    }


def test_bindings_are_settled_when_every_provider_has_answered(net: Net) -> None:
    shop = net.peer("shop")
    net.bind(shop, "parked")
    assert net.router.bindings.is_settled
    clock = provider(net)
    net.bind(shop, "refused", function="h")
    net.bind(shop, "gone", type="cron", function="g")
    assert not net.router.bindings.is_settled
    net.send(clock, "triggerregistrationresult", id="parked", trigger_type="cron", function_id="f")
    error = {"code": "wrong", "message": "no"}
    net.send(clock, "triggerregistrationresult", id="refused", trigger_type="cron", function_id="f", error=error)
    assert not net.router.bindings.is_settled
    net.send(shop, "unregistertrigger", id="gone", trigger_type="cron")  # so the refused one is offered again
    assert not net.router.bindings.is_settled
    net.send(clock, "triggerregistrationresult", id="refused", trigger_type="cron", function_id="f", error=error)
    assert net.router.bindings.is_settled


def test_a_binding_without_config_is_given_null(net: Net) -> None:
    clock = provider(net)
    net.send(net.peer("shop"), "registertrigger", id="t1", trigger_type="cron", function_id="f")
    assert net.one(clock)["config"] is None


def test_bindings_wait_for_their_provider_and_reach_it_in_the_order_they_were_made(net: Net) -> None:
    shop = net.peer("shop")
    for id in ("b", "a", "c"):
        net.bind(shop, id)
    assert [binding.provider for binding in net.router.bindings] == [None, None, None]
    assert heard(net, provider(net)) == [("registertrigger", id) for id in ("b", "a", "c")]


def test_a_new_provider_takes_over_in_order_and_the_old_one_is_told(net: Net) -> None:
    shop, old = net.peer("shop"), provider(net)
    net.bind(shop, "b")
    net.bind(shop, "a")
    net.got(old)
    new = net.peer("clock2")
    net.send(new, "registertriggertype", id="cron", description="")
    assert heard(net, new) == [("registertrigger", "b"), ("registertrigger", "a")]
    assert heard(net, old) == [("unregistertrigger", "b"), ("unregistertrigger", "a")]


def test_a_provider_that_says_its_type_again_hears_nothing_twice(net: Net) -> None:
    clock = provider(net)
    net.bind(net.peer("shop"))
    net.got(clock)
    net.send(clock, "registertriggertype", id="cron", description="newer")
    assert heard(net, clock) == []


def test_a_crashed_provider_gets_its_bindings_back_under_their_ids(net: Net) -> None:
    clock, shop = provider(net), net.peer("shop")
    net.bind(shop, "b")
    net.bind(shop, "a")
    net.router.peer_table.detach(clock)
    assert [binding.provider for binding in net.router.bindings] == [None, None]
    again = net.peer("clock")
    net.send(again, "registertriggertype", id="cron", description="")
    assert heard(net, again) == [("registertrigger", "b"), ("registertrigger", "a")]
    assert net.got(shop) == []


def test_the_provider_at_home_wins_over_the_default_one_and_loses_to_it_when_it_leaves(net: Net) -> None:
    common = provider(net)
    net.bind(net.peer("shop", namespace="eu"))
    assert heard(net, common) == [("registertrigger", "t1")]
    home = provider(net, "clock-eu", namespace="eu")
    assert heard(net, common) == [("unregistertrigger", "t1")]
    assert heard(net, home) == [("registertrigger", "t1")]
    net.send(home, "unregistertriggertype", id="cron")
    assert heard(net, home) == [("unregistertrigger", "t1")]
    assert heard(net, common) == [("registertrigger", "t1")]


def test_a_named_trigger_namespace_is_strict(net: Net) -> None:
    provider(net)
    net.bind(net.peer("shop"), trigger_namespace="eu")
    [binding] = net.router.bindings
    assert binding.provider is None
    eu = provider(net, "clock-eu", namespace="eu")
    assert binding.provider is eu


def test_only_the_provider_takes_its_type_back(net: Net) -> None:
    clock = provider(net)
    net.send(net.peer("stranger"), "unregistertriggertype", id="cron")
    net.send(clock, "unregistertriggertype", id="other")
    assert ("default", "cron") in net.router.bindings.types


@pytest.mark.parametrize("field", ["namespace", "trigger_namespace"])
def test_a_blank_namespace_is_refused_by_name(net: Net, field: str) -> None:
    shop = net.peer("shop")
    net.bind(shop, **{field: " "})
    answer = net.one(shop)
    assert answer["type"] == "triggerregistrationresult"
    assert answer["error"]["code"] == "INVALID_NAMESPACE"
    assert field in answer["error"]["message"]
    assert ids(net) == []


def test_the_same_id_again_replaces_the_binding(net: Net) -> None:
    clock, shop = provider(net), net.peer("shop")
    net.bind(shop)
    net.bind(shop, function="g")
    assert heard(net, clock) == [("registertrigger", "t1"), ("unregistertrigger", "t1"), ("registertrigger", "t1")]
    assert [binding.function_id for binding in net.router.bindings] == ["g"]


def test_unregistering_an_unknown_binding_is_no_error(net: Net) -> None:
    net.send(net.peer("shop"), "unregistertrigger", id="nothing")
    assert net.router.calls.dirty == [net.router.peer_table.peers["shop"]]  # its greeting, nothing else


def test_a_binding_leaves_with_its_binder_and_a_durable_one_stays(net: Net) -> None:
    clock, shop = provider(net), net.peer("shop")
    net.bind(shop)
    net.router.bindings.bind(durable := type(next(iter(net.router.bindings)))(RegisterTrigger("d", "cron", "f"), None))
    net.got(clock)
    net.router.peer_table.detach(shop)
    assert heard(net, clock) == [("unregistertrigger", "t1")]
    assert ids(net) == ["d"]
    assert net.router.bindings.release("d", shop)[0][0] is clock
    assert durable.owner is None


# The provider's answer


def test_a_refusal_reaches_the_binder_and_parks_the_binding_until_a_provider_comes(net: Net) -> None:
    clock, shop = provider(net), net.peer("shop")
    net.bind(shop)
    net.got(clock)
    error = {"code": "bad_expression", "message": "no"}
    net.send(clock, "triggerregistrationresult", id="t1", trigger_type="cron", function_id="f", error=error)
    assert net.one(shop) == {
        "type": "triggerregistrationresult",
        "id": "t1",
        "trigger_type": "cron",
        "function_id": "f",
        "error": error,
    }
    net.send(clock, "registertriggertype", id="cron", description="")
    assert heard(net, clock) == [("registertrigger", "t1")]


@pytest.mark.parametrize("case", ["stranger", "unknown id", "success"])
def test_other_answers_change_nothing(net: Net, case: str) -> None:
    clock, shop = provider(net), net.peer("shop")
    net.bind(shop)
    sender = net.peer("stranger") if case == "stranger" else clock
    id = "t9" if case == "unknown id" else "t1"
    error = None if case == "success" else {"code": "x", "message": "y"}
    net.send(sender, "triggerregistrationresult", id=id, trigger_type="cron", function_id="f", error=error)
    assert net.got(shop) == []
    assert next(iter(net.router.bindings)).provider is clock


# Supervised workers: reloads and instances


def reload(net: Net, old: Peer, *bindings: tuple[str, dict[str, Any]], generation: int = 2) -> Peer:
    new = net.worker("shop", generation)
    for id, fields in bindings:
        net.bind(new, id, **fields)
    net.router.peer_table.promote(new)
    net.router.peer_table.retire(old)
    return new


def first(net: Net, *bindings: tuple[str, dict[str, Any]]) -> Peer:
    peer = net.worker("shop")
    for id, fields in bindings:
        net.bind(peer, id, **fields)
    net.router.peer_table.promote(peer)
    return peer


@pytest.mark.parametrize("id", ["fresh", "x"], ids=["a new id", "the same id"])
def test_across_a_reload_a_binding_keeps_its_id_and_the_provider_hears_nothing(net: Net, id: str) -> None:
    clock, old = provider(net), first(net, ("x", {}))
    assert heard(net, clock) == [("registertrigger", "x")]
    new = reload(net, old, (id, {}))
    net.router.peer_table.detach(old)
    assert heard(net, clock) == []
    assert ids(net) == ["x"]
    assert list(next(iter(net.router.bindings)).binders) == [new]
    net.send(new, "unregistertrigger", id=id)
    assert heard(net, clock) == [("unregistertrigger", "x")]
    assert ids(net) == []


def test_a_reload_drops_what_the_new_code_no_longer_binds_and_changes_what_it_binds_differently(net: Net) -> None:
    clock, old = provider(net), first(net, ("x", {}), ("y", {"config": {"n": 1}}))
    net.got(clock)
    reload(net, old, ("y", {"config": {"n": 2}}))
    assert heard(net, clock) == [("unregistertrigger", "y"), ("registertrigger", "y"), ("unregistertrigger", "x")]
    assert ids(net) == ["y"]


def test_two_equal_bindings_of_one_worker_stay_two_through_a_reload(net: Net) -> None:
    clock, old = provider(net), first(net, ("x", {}), ("y", {}))
    assert heard(net, clock) == [("registertrigger", "x"), ("registertrigger", "y")]
    new = reload(net, old, ("u", {}), ("v", {}))
    assert (heard(net, clock), ids(net)) == ([], ["x", "y"])
    net.send(new, "unregistertrigger", id="v")
    assert (heard(net, clock), ids(net)) == ([("unregistertrigger", "y")], ["x"])


def test_a_refusal_names_the_binding_as_each_binder_knows_it(net: Net) -> None:
    clock, old = provider(net), first(net, ("x", {}))
    new = reload(net, old, ("fresh", {}))
    net.got(clock)
    error = {"code": "c", "message": "m"}
    net.send(clock, "triggerregistrationresult", id="x", trigger_type="cron", function_id="f", error=error)
    assert net.one(new)["id"] == "fresh"
    assert net.got(old) == []


def test_an_id_given_to_an_adopted_binding_can_be_bound_anew(net: Net) -> None:
    clock, old = provider(net), first(net, ("x", {}))
    new = reload(net, old, ("fresh", {}))
    net.got(clock)
    net.bind(new, "fresh", config={"n": 2})
    assert heard(net, clock) == [("unregistertrigger", "x"), ("registertrigger", "fresh")]
    net.send(new, "unregistertrigger", id="fresh")
    assert ids(net) == []


@pytest.mark.parametrize("ids_of_two", [("x", "y"), ("x", "x")])
def test_instances_share_a_binding_until_the_last_of_them_lets_go(net: Net, ids_of_two: tuple[str, str]) -> None:
    clock = provider(net)
    peers = []
    for number, id in enumerate(ids_of_two, start=1):
        peer = net.worker("shop", instance=number)
        net.bind(peer, id)
        net.router.peer_table.promote(peer)
        peers.append(peer)
    assert (heard(net, clock), ids(net)) == ([("registertrigger", "x")], ["x"])
    net.send(peers[0], "unregistertrigger", id="x")
    assert (heard(net, clock), ids(net)) == ([], ["x"])
    net.send(peers[1], "unregistertrigger", id=ids_of_two[1])
    assert (heard(net, clock), ids(net)) == ([("unregistertrigger", "x")], [])


def test_a_crashed_worker_keeps_its_bindings_until_it_is_back_or_given_up(net: Net) -> None:
    clock, old = provider(net), first(net, ("x", {}), ("y", {"config": 1}))
    net.got(clock)
    net.router.peer_table.detach(old)
    assert (heard(net, clock), ids(net)) == ([], ["x", "y"])
    new = net.worker("shop", 2)
    net.bind(new, "fresh")
    net.router.peer_table.promote(new)
    assert (heard(net, clock), ids(net)) == ([("unregistertrigger", "y")], ["x"])
    net.router.peer_table.detach(new)
    net.router.peer_table.refuse_calls("shop", {"state": "failed"})
    assert (heard(net, clock), ids(net)) == ([("unregistertrigger", "x")], [])


def test_a_hundred_reloads_leave_one_binding_and_one_alias(net: Net) -> None:
    provider(net)
    peer = first(net, ("x", {}))
    for generation in range(2, 102):
        old, peer = peer, reload(net, peer, (f"id{generation}", {}), generation=generation)
        net.router.peer_table.detach(old)
    assert ids(net) == ["x"]
    assert net.router.bindings._aliases == {"id101": "x"}


def test_a_provider_that_is_told_to_finish_keeps_what_nobody_takes_over(net: Net) -> None:
    clock = net.worker("clock")
    net.send(clock, "registertriggertype", id="cron", description="")
    net.router.peer_table.promote(clock)
    net.bind(net.peer("shop"))
    assert heard(net, clock) == [("registertrigger", "t1")]
    net.router.peer_table.retire(clock)
    assert heard(net, clock) == []
    net.router.peer_table.detach(clock)
    assert heard(net, provider(net)) == [("registertrigger", "t1")]


# A refused binding


def refuse(net: Net, peer: Peer, id: str, reason: str = "taken") -> None:
    """The provider refuses a binding."""
    net.send(peer, "triggerregistrationresult", id=id, error={"code": "no", "message": reason})


def test_a_refused_binding_is_offered_again_when_another_of_its_type_goes(net: Net) -> None:
    clock, first, second = provider(net), net.peer("first"), net.peer("second")
    net.bind(first, "a")
    net.bind(second, "b")
    net.got(clock)
    refuse(net, clock, "b")
    assert net.one(second)["error"]["message"] == "taken"
    refused = net.router.bindings.find("b")
    assert refused is not None
    assert refused.is_refused
    assert refused.provider is None
    net.router.peer_table.detach(first)
    assert heard(net, clock) == [("unregistertrigger", "a"), ("registertrigger", "b")]
    assert not refused.is_refused
    assert refused.provider is clock


def test_a_refusal_that_crosses_the_end_of_another_binding_is_no_refusal(net: Net) -> None:
    clock, first, second = provider(net), net.peer("first"), net.peer("second")
    net.bind(first, "a")
    net.bind(second, "b")
    net.send(first, "unregistertrigger", id="a")
    net.got(clock)
    refuse(net, clock, "b")  # said before it heard that `a` has gone
    assert heard(net, clock) == [("registertrigger", "b")]
    assert net.got(second) == []
    refuse(net, clock, "b")
    assert net.one(second)["error"]["message"] == "taken"
    assert net.got(clock) == []


def test_all_that_a_worker_leaves_is_offered_to_all_that_were_refused(net: Net) -> None:
    clock, first, second = provider(net), net.peer("first"), net.peer("second")
    for id in ("a1", "a2"):
        net.bind(first, id)
    for id in ("b1", "b2"):
        net.bind(second, id)
        refuse(net, clock, id)
    net.got(clock)
    net.router.peer_table.detach(first)
    assert heard(net, clock) == [
        ("unregistertrigger", "a1"),
        ("registertrigger", "b1"),
        ("registertrigger", "b2"),
        ("unregistertrigger", "a2"),
    ]
    refuse(net, clock, "b2")  # `a2` was there still
    assert heard(net, clock) == [("registertrigger", "b2")]


def test_a_refused_binding_goes_without_a_word_to_the_provider(net: Net) -> None:
    clock, shop = provider(net), net.peer("shop")
    net.bind(shop, "a")
    net.bind(shop, "b")
    refuse(net, clock, "b")
    net.got(clock)
    net.send(shop, "unregistertrigger", id="b")
    net.send(shop, "unregistertrigger", id="a")
    assert heard(net, clock) == [("unregistertrigger", "a")]


def test_a_refused_binding_is_offered_to_another_provider_and_again_to_the_same(net: Net) -> None:
    clock, shop = provider(net), net.peer("shop")
    net.bind(shop, "a")
    refuse(net, clock, "a")
    net.got(clock)
    net.send(clock, "registertriggertype", id="cron", description="")
    assert heard(net, clock) == [("registertrigger", "a")]
    refuse(net, clock, "a")
    assert heard(net, provider(net, "better-clock")) == [("registertrigger", "a")]


def test_the_end_of_a_binding_of_another_type_offers_nothing(net: Net) -> None:
    clock, web, shop = provider(net), provider(net, "web", "http"), net.peer("shop")
    net.bind(shop, "a", type="http")
    net.bind(shop, "b")
    refuse(net, clock, "b")
    net.got(clock)
    net.send(shop, "unregistertrigger", id="a")
    assert net.got(clock) == []
    assert heard(net, web) == [("registertrigger", "a"), ("unregistertrigger", "a")]


class Everything:
    """The rights of a session that may do what it likes."""

    def refusal(self, message: object) -> None:
        return None

    def may_invoke(self, namespace: str, function_id: str) -> bool:
        return True

    def may_bind_to(self, trigger_type: str) -> bool:
        return True

    def called_by(self, binding: RegisterTrigger) -> RegisterTrigger:
        return binding


def session(net: Net, name: str = "session") -> Peer:
    peer = net.peer(name)
    peer.owner.rights = Everything()
    return peer


def test_bindings_of_sessions_give_way_to_one_of_the_project(net: Net) -> None:
    clock, visitor, shop = provider(net), session(net), net.peer("shop")
    net.bind(visitor, "theirs")
    net.bind(shop, "ours")
    net.got(clock)
    refuse(net, clock, "ours")
    assert heard(net, clock) == [
        ("unregistertrigger", "theirs"),
        ("registertrigger", "ours"),
        ("registertrigger", "theirs"),
    ]
    assert net.got(shop) == []
    refuse(net, clock, "theirs")
    assert net.one(visitor)["error"]["message"] == "taken"
    # Refused once more, it is another one of the project that is in its way.
    refuse(net, clock, "ours")
    assert net.one(shop)["error"]["message"] == "taken"


def test_a_new_provider_hears_of_the_projects_bindings_first(net: Net) -> None:
    visitor, shop = session(net), net.peer("shop")
    net.bind(visitor, "theirs")
    net.bind(shop, "ours")
    assert heard(net, provider(net)) == [("registertrigger", "ours"), ("registertrigger", "theirs")]


def test_only_so_many_refused_bindings_of_one_session_are_offered_again(net: Net) -> None:
    clock, visitor = provider(net), session(net)
    for number in range(30):
        net.bind(visitor, f"t{number}")
        refuse(net, clock, f"t{number}")
    assert len(ids(net)) == 16
    assert len(net.got(visitor)) == 30


@pytest.mark.parametrize("path", ["same", "other"])
def test_the_work_for_many_bindings_grows_with_their_number_only(path: str) -> None:
    """Of a first start, of a reload that binds the same or something else, and of the end of the old generation."""

    def work(count: int) -> list[int]:
        net = Net()
        provider(net)
        generations = []
        for generation, prefix in ((1, "same"), (2, path)):
            peer = net.worker("shop", generation=generation)
            for number in range(count):
                net.bind(peer, f"{generation}.{number}", config={"path": f"{prefix}/{number}"})
            generations.append(peer)
        old, new = generations
        promote, detach = net.router.peer_table.promote, net.router.peer_table.detach
        return [lines_run(lambda: promote(old)), lines_run(lambda: promote(new)), lines_run(lambda: detach(old))]

    for few, many in zip(work(50), work(200), strict=True):
        assert many < 5 * few
