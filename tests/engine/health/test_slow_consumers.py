"""Which peers that do not read must go."""

from __future__ import annotations

from iii.engine.health.slow_consumers import MOST, PATIENCE, SlowConsumers
from iii.engine.routing.peer import Peer


def peer_with(waiting: int) -> Peer:
    peer = Peer("p", kind="worker", name="p")
    peer.enqueued = waiting
    return peer


def looks(watch: SlowConsumers, peer: Peer, count: int, *, has_live_call: bool = False) -> list[str]:
    """Return what `count` looks at the peer found."""
    found = [watch.look([peer], lambda _: has_live_call) for _ in range(count)]
    return [why for verdicts in found for _, why in verdicts]


def test_a_peer_that_reads_nothing_goes_after_ten_looks() -> None:
    peer, watch = peer_with(1), SlowConsumers()
    assert looks(watch, peer, PATIENCE) == []
    assert looks(watch, peer, 1) == ["has read nothing of its input for 10 s"]


def test_one_byte_is_progress() -> None:
    peer, watch = peer_with(10), SlowConsumers()
    for _ in range(5):
        assert looks(watch, peer, PATIENCE) == []
        peer.written += 1


def test_one_that_has_read_everything_begins_anew() -> None:
    peer, watch = peer_with(1), SlowConsumers()
    looks(watch, peer, PATIENCE)
    peer.written = 1
    assert looks(watch, peer, 1) == []
    peer.enqueued = 2
    assert looks(watch, peer, PATIENCE) == []


def test_a_call_inside_its_deadline_is_waited_for() -> None:
    peer, watch = peer_with(1), SlowConsumers()
    assert looks(watch, peer, PATIENCE * 3, has_live_call=True) == []
    assert looks(watch, peer, 1) == ["has read nothing of its input for 10 s"]


def test_too_much_that_waits_is_too_much_at_once() -> None:
    assert looks(SlowConsumers(), peer_with(MOST), 1, has_live_call=True) == []
    assert looks(SlowConsumers(), peer_with(MOST + 1), 1, has_live_call=True) == [
        "does not read its input: 64 MiB wait for it"
    ]
