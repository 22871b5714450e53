"""Which peers take nothing of what is sent to them, for how long, and when that is too long. Pure.

A peer that does not read costs memory and never answers. New calls to it are refused early (`Limits.unsent_bytes`);
this is about the rest: results and what was sent before. The switchboard looks once a second and ends those that are
named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from iii.engine.routing.peer import Peer

# Bytes that may wait for one peer. More than one that first writes 50 MB and then reads ever needs.
MOST = 64 * 1024 * 1024
# Looks (seconds) without one byte taken. Counted, not measured: while the whole machine sleeps nobody reads.
PATIENCE = 10


class SlowConsumers:
    """Remembers what each peer had taken at the last look."""

    def __init__(self) -> None:
        self._looks: dict[Peer, tuple[int, int]] = {}  # bytes taken, looks since then

    def look(self, peers: Iterable[Peer], has_live_call: Callable[[Peer], bool]) -> list[tuple[Peer, str]]:
        """Return those that must go and why. One with a call inside its deadline may still be busy with that."""
        looks = {peer: self._look(peer) for peer in peers if peer.unsent_bytes}
        self._looks = looks
        verdicts = [(peer, self._verdict(peer, count, has_live_call)) for peer, (_, count) in looks.items()]
        return [(peer, why) for peer, why in verdicts if why]

    def _look(self, peer: Peer) -> tuple[int, int]:
        taken, count = self._looks.get(peer, (peer.written, -1))
        return (taken, count + 1) if taken == peer.written else (peer.written, 0)

    def _verdict(self, peer: Peer, count: int, has_live_call: Callable[[Peer], bool]) -> str:
        if peer.unsent_bytes > MOST:
            return f"does not read its input: {peer.unsent_bytes >> 20} MiB wait for it"
        if count >= PATIENCE and not has_live_call(peer):
            return f"has read nothing of its input for {PATIENCE} s"
        return ""
