"""When silence makes a program without our SDK ready."""

from __future__ import annotations

from iii.engine.health.foreign_readiness import QUIET, SILENT, patience
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


def fresh(owner: Owner, *staged: str) -> list[Peer]:
    peer = Peer("new", kind="worker", owner=owner)
    peer.staged = [RegisterFunction(id) for id in staged]
    return [peer]


def test_one_that_has_registered_is_ready_soon() -> None:
    owner = worker()
    assert patience(owner, fresh(owner, "a::b"), is_adopted=False) == QUIET


def test_one_that_says_nothing_is_taken_for_a_program_that_registers_nothing() -> None:
    owner = worker()
    assert patience(owner, fresh(owner), is_adopted=False) == SILENT


def test_one_that_came_over_a_connection_before_is_waited_for() -> None:
    owner = worker("a::b", has_own_connections=True)
    assert patience(owner, fresh(owner), is_adopted=False) is None


def test_one_that_lacks_functions_of_its_predecessor_gets_more_time() -> None:
    owner = worker("a::b", "a::c", has_own_connections=True)
    assert patience(owner, fresh(owner, "a::b"), is_adopted=True) == SILENT
    assert patience(owner, fresh(owner, "a::b", "a::c", "a::d"), is_adopted=True) == QUIET
