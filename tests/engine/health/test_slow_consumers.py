"""Which peers are disconnected because they do not read."""

from __future__ import annotations

from iii.engine.health.liveness import MAX_BACKLOG, MAX_IDLE_CHECKS, SlowConsumers
from iii.engine.routing.peer import Peer


def peer_with(waiting: int) -> Peer:
    peer = Peer("p", kind="worker", name="p")
    peer.enqueued = waiting
    return peer


def checks(watch: SlowConsumers, peer: Peer, count: int, *, has_live_call: bool = False) -> list[str]:
    """Return what `count` checks of the peer found."""
    found = [watch.check([peer], lambda _: has_live_call) for _ in range(count)]
    return [why for verdicts in found for _, why in verdicts]


def test_a_peer_that_reads_nothing_goes_after_ten_checks() -> None:
    peer, watch = peer_with(1), SlowConsumers()
    assert checks(watch, peer, MAX_IDLE_CHECKS) == []
    assert checks(watch, peer, 1) == ["has read nothing of its input for 10 s"]


def test_one_byte_is_progress() -> None:
    peer, watch = peer_with(10), SlowConsumers()
    for _ in range(5):
        assert checks(watch, peer, MAX_IDLE_CHECKS) == []
        peer.written += 1


def test_a_peer_that_has_read_everything_begins_anew() -> None:
    peer, watch = peer_with(1), SlowConsumers()
    checks(watch, peer, MAX_IDLE_CHECKS)
    peer.written = 1
    assert checks(watch, peer, 1) == []
    peer.enqueued = 2
    assert checks(watch, peer, MAX_IDLE_CHECKS) == []


def test_a_peer_with_a_live_call_is_waited_for() -> None:
    peer, watch = peer_with(1), SlowConsumers()
    assert checks(watch, peer, MAX_IDLE_CHECKS * 3, has_live_call=True) == []
    assert checks(watch, peer, 1) == ["has read nothing of its input for 10 s"]


def test_a_peer_over_the_byte_limit_goes_at_once() -> None:
    assert checks(SlowConsumers(), peer_with(MAX_BACKLOG), 1, has_live_call=True) == []
    assert checks(SlowConsumers(), peer_with(MAX_BACKLOG + 1), 1, has_live_call=True) == [
        "does not read its input: 64 MiB wait for it"
    ]
