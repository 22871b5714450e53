"""How long a program without SDK may be silent before it counts as ready. Pure; the switchboard keeps the timers."""

from __future__ import annotations

from iii.engine.routing.peer import Owner, Peer
from iii.protocol.messages import RegisterFunction

# A program without SDK never says `ready`: it is ready when it has registered nothing more for this long.
QUIET = 0.1
# One that registers nothing at all (a build watcher, a server) counts as up after this. Long, because a runtime that
# starts on a busy machine and then connects by itself must not be taken for one: calls to it would fail.
SILENT = 3.0


def patience(owner: Owner, peers: list[Peer], *, is_adopted: bool) -> float | None:
    """Return how many seconds of silence make a foreign worker ready; None: silence says nothing.

    A worker that came over WebSocket before will come again, and one that lacks functions its predecessor has is
    probably not done: promoted too early, it would take them away.
    """
    staged = {message.id for peer in peers for message in peer.staged if isinstance(message, RegisterFunction)}
    serving = {function.id for peer in owner.peers for function in peer.functions}
    if owner.has_own_connections and not is_adopted:
        return None
    return QUIET if staged and serving <= staged else SILENT
