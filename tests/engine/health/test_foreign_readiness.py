"""When silence makes a program without our SDK ready."""

from __future__ import annotations

from iii.engine.health.foreign_readiness import REGISTRATION_DEBOUNCE, SILENCE_TIMEOUT, readiness_timeout
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.registry import Function
from iii.protocol.messages import RegisterFunction


def worker(*serving: str, has_own_connections: bool = False) -> Owner:
    """A worker whose old generation serves these functions."""
    owner = Owner("w", "default", is_supervised=True)
    owner.has_own_connections = has_own_connections
    peer = Peer("old", kind="worker", owner=owner)
    peer.functions = {Function(id, "default", owner): None for id in serving}
    owner.peers.append(peer)
    return owner


def new_peer(owner: Owner, *staged: str) -> list[Peer]:
    peer = Peer("new", kind="worker", owner=owner)
    peer.staged = [RegisterFunction(id) for id in staged]
    return [peer]


def test_a_program_that_has_registered_functions_is_ready_soon() -> None:
    owner = worker()
    assert readiness_timeout(owner, new_peer(owner, "a::b"), is_adopted=False) == REGISTRATION_DEBOUNCE


def test_a_silent_program_counts_as_one_that_registers_nothing() -> None:
    owner = worker()
    assert readiness_timeout(owner, new_peer(owner), is_adopted=False) == SILENCE_TIMEOUT


def test_a_program_that_connected_by_itself_before_is_waited_for() -> None:
    owner = worker("a::b", has_own_connections=True)
    assert readiness_timeout(owner, new_peer(owner), is_adopted=False) is None


def test_a_program_that_lacks_functions_of_its_predecessor_gets_more_time() -> None:
    owner = worker("a::b", "a::c", has_own_connections=True)
    assert readiness_timeout(owner, new_peer(owner, "a::b"), is_adopted=True) == SILENCE_TIMEOUT
    assert readiness_timeout(owner, new_peer(owner, "a::b", "a::c", "a::d"), is_adopted=True) == REGISTRATION_DEBOUNCE
