"""Which peers do not read what they are sent, and when that is too much. Pure; `heartbeat.py` checks once a second.

A peer that does not read costs memory and never answers. The router refuses new calls to it early
(`Limits.unsent_bytes`); this is about results, and about what was sent before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from iii.engine.routing.peer import Peer

# Bytes that may wait for one peer: more than for a peer that writes 50 MB of calls before it reads the first result.
MAX_BACKLOG = 64 * 1024 * 1024
# Checks in a row (one a second) at which a peer may have read nothing. They are counted instead of measured as time,
# because while the whole machine sleeps no peer can read.
MAX_IDLE_CHECKS = 10


class SlowConsumers:
    """Remembers how many bytes each peer had read at the last check."""

    def __init__(self) -> None:
        self._progress: dict[Peer, tuple[int, int]] = {}  # bytes read, checks since then

    def check(self, peers: Iterable[Peer], has_live_call: Callable[[Peer], bool]) -> list[tuple[Peer, str]]:
        """Return the peers to disconnect and why.

        A peer with a live call (in flight, inside its deadline) may be busy with it, and is only held to MAX_BACKLOG.
        """
        previous, self._progress = self._progress, {}
        slow = []
        for peer in peers:
            if not peer.unsent_bytes:
                continue
            written, idle_checks = previous.get(peer, (peer.written, -1))
            idle_checks = idle_checks + 1 if written == peer.written else 0
            self._progress[peer] = (peer.written, idle_checks)
            if peer.unsent_bytes > MAX_BACKLOG:
                slow.append((peer, f"does not read its input: {peer.unsent_bytes >> 20} MiB wait for it"))
            elif idle_checks >= MAX_IDLE_CHECKS and not has_live_call(peer):
                slow.append((peer, f"has read nothing of its input for {MAX_IDLE_CHECKS} s"))
        return slow
