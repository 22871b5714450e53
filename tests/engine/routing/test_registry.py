"""Who may register what: one owner a function, standbys in order, ids that can be shown anywhere, bounded counts."""

from __future__ import annotations

from typing import Any

import pytest

from iii.engine.routing import registry
from iii.engine.routing.events import FunctionsChanged
from iii.errors import InvocationError
from tests.support.routing import Net


def owner_of(net: Net, function: str) -> str:
    found = net.router.registry.find("default", function)
    assert found is not None
    return found.owner.name


def test_the_first_owner_stays_and_the_second_is_told_who_it_is(net: Net) -> None:
    first, second = net.peer("a"), net.peer("b")
    net.register(first, "f")
    net.register(second, "f")
    assert net.one(second) == {
        "type": "registrationrejected",
        "code": "FUNCTION_NAMESPACE_CONFLICT",
        "namespace": "default",
        "function_id": "f",
        "owner_worker_id": "a",
    }
    assert owner_of(net, "f") == "a"
    assert net.notices() == ["FUNCTION_NAMESPACE_CONFLICT"]


def test_standbys_take_over_in_the_order_they_came(net: Net) -> None:
    peers = [net.peer(name) for name in "abc"]
    for peer in peers:
        net.register(peer, "f", metadata={"of": peer.name})
    net.router.peer_table.detach(peers[0])
    assert owner_of(net, "f") == "b"
    assert net.router.registry.default["f"].metadata == {"of": "b"}
    net.router.peer_table.detach(peers[1])
    assert owner_of(net, "f") == "c"
    net.router.peer_table.detach(peers[2])
    assert net.router.registry.find("default", "f") is None


def test_a_standby_that_left_or_gave_up_is_not_promoted(net: Net) -> None:
    owner, gone, quitter = net.peer("a"), net.peer("b"), net.peer("c")
    for peer in (owner, gone, quitter):
        net.register(peer, "f")
    net.router.peer_table.detach(gone)
    net.send(quitter, "unregisterfunction", id="f")
    net.send(owner, "unregisterfunction", id="f")
    assert list(net.router.registry) == []
    assert [peer.functions for peer in (owner, gone, quitter)] == [{}, {}, {}]


def test_a_standby_that_asks_again_stands_once_with_its_newest_words(net: Net) -> None:
    owner, standby = net.peer("a"), net.peer("b")
    net.register(owner, "f")
    for number in range(50):
        net.register(standby, "f", description=str(number))
    assert len(net.router.registry.default["f"].standbys) == 1
    net.router.peer_table.detach(owner)
    assert net.router.registry.default["f"].declaration.description == "49"


def test_registering_again_replaces_description_and_metadata(net: Net) -> None:
    peer = net.peer("a")
    net.register(peer, "f", metadata={"idempotent": True})
    assert net.router.registry.default["f"].is_idempotent
    net.register(peer, "f", description="newer", metadata=[1])
    function = net.router.registry.default["f"]
    assert (function.declaration.description, function.metadata, function.is_idempotent) == ("newer", {}, False)
    assert len(function.providers) == 1


def test_unregistering_what_another_owns_or_nobody_has_changes_nothing(net: Net) -> None:
    owner, other = net.peer("a"), net.peer("b")
    net.register(owner, "f")
    net.send(other, "unregisterfunction", id="f")
    net.send(other, "unregisterfunction", id="nothing")
    assert owner_of(net, "f") == "a"


def test_every_change_of_the_set_of_functions_is_told(net: Net) -> None:
    peer = net.peer("a")
    for message in ("registerfunction", "unregisterfunction"):
        net.router.events.clear()
        net.send(peer, message, id="f")
        assert FunctionsChanged() in net.router.events


def test_a_function_whose_worker_is_down_for_good_can_be_taken_over(net: Net) -> None:
    process = net.serving("w", "f")
    net.router.peer_table.detach(process)
    other = net.peer("b")
    net.register(other, "f")
    assert net.one(other)["code"] == "FUNCTION_NAMESPACE_CONFLICT"  # it is expected back
    third = net.peer("c")
    net.router.peer_table.refuse_calls("w", {"state": "failed"})
    net.register(third, "f")
    assert owner_of(net, "f") == "c"


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("", "1 to 256 characters"),
        ("x" * 257, "257"),
        ("a b", "no spaces"),
        ("a\nb", "no spaces"),
        ("a..b", "'..'"),
        ("a\u202eb", "bidi"),
        ("a\x07", "control"),
    ],
)
def test_an_id_that_could_mislead_is_refused(net: Net, id: str, words: str) -> None:
    peer = net.peer("a")
    net.register(peer, id)
    assert net.one(peer)["reason"] == "invalid_message"
    with pytest.raises(InvocationError, match=words):
        registry.check_id(id)
    assert list(net.router.registry) == []


@pytest.mark.parametrize("id", ["x", "x" * 256, "größe::ändern", "a::b-c_d.e/f"])
def test_other_ids_pass(net: Net, id: str) -> None:
    net.register(net.peer("a"), id)
    assert [function.id for function in net.router.registry] == [id]


def test_the_ten_thousand_and_first_function_of_a_peer_is_refused(net: Net) -> None:
    peer = net.peer("a")
    for number in range(registry.MAX_FUNCTIONS_PER_PEER):
        net.register(peer, f"f{number}")
    assert net.got(peer) == []
    net.register(peer, "one-more")
    assert net.one(peer)["reason"] == "limit_exceeded"
    net.register(peer, "f0", description="said again")
    assert net.got(peer) == []


def test_the_sole_provider_is_known_only_while_it_takes_any_call(net: Net) -> None:
    peer = net.peer("a")
    net.register(peer, "f")
    function = net.router.registry.default["f"]
    assert function.direct_callee is peer
    function.declare(function.declaration, lambda payload: None)
    assert function.direct_callee is None
    limited = net.serving("w", "g", concurrency=1)
    assert net.router.registry.default["g"].providers == [limited]
    assert net.router.registry.default["g"].direct_callee is None
    open_one, second = net.serving("v", "h"), net.worker("v", instance=2)
    net.register(second, "h")
    net.router.peer_table.promote(second)
    assert net.router.registry.default["h"].direct_callee is None
    net.router.peer_table.detach(second)
    assert net.router.registry.default["h"].direct_callee is open_one


@pytest.mark.parametrize(
    ("id", "metadata", "is_internal"),
    [
        ("engine::functions::list", None, True),
        ("engine::queue::enqueue", None, False),
        ("math::add", None, False),
        ("math::add", {"internal": True}, True),
    ],
)
def test_internal_functions_are_marked(net: Net, id: str, metadata: Any, is_internal: bool) -> None:
    net.register(net.peer("a"), id, metadata=metadata)
    assert net.router.registry.default[id].is_internal is is_internal


def test_dropping_a_function_leaves_a_successor_of_the_same_id_alone(net: Net) -> None:
    peer = net.peer("a")
    net.register(peer, "f")
    old = net.router.registry.default["f"]
    net.router.registry.drop(old)
    net.register(peer, "f")
    net.router.registry.drop(old)
    assert net.router.registry.find("default", "f") is not old
    assert len(list(net.router.registry)) == 1
    assert net.router.registry.default["f"].providers == [peer]


def test_a_bad_schema_costs_only_its_function() -> None:
    def refuse(_: Any) -> None:
        raise InvocationError("invalid_schema", "request format: no")

    net = Net(compile_schema=refuse)
    peer = net.peer("a")
    net.register(peer, "f")
    rejection = net.one(peer)
    # The public SDKs take any other code for the end of the whole worker.
    assert (rejection["code"], rejection["function_id"]) == ("FUNCTION_NAMESPACE_CONFLICT", "f")
    assert (rejection["reason"], rejection["message"]) == ("invalid_schema", "request format: no")
    peer.owner.is_validated = False
    net.register(peer, "f")
    assert owner_of(net, "f") == "a"


# Actions


def test_an_action_belongs_to_who_registered_it_last_and_goes_with_it(net: Net) -> None:
    first, second = net.peer("a"), net.peer("b")
    for peer in (first, second):
        net.send(peer, "registeraction", id="batch", function_id="b::run")
    net.send(first, "unregisteraction", id="batch")
    assert net.router.registry.actions["batch"].peer is second
    net.router.peer_table.detach(first)
    assert "batch" in net.router.registry.actions
    net.router.peer_table.detach(second)
    assert net.router.registry.actions == {}


def test_an_action_is_taken_back_by_its_provider_and_held_to_the_grammar_of_ids(net: Net) -> None:
    peer = net.peer("a")
    net.send(peer, "registeraction", id="batch", function_id="b::run")
    net.send(peer, "unregisteraction", id="batch")
    net.send(peer, "registeraction", id="two words", function_id="b::run")
    assert net.one(peer)["reason"] == "invalid_message"
    assert net.router.registry.actions == {}
