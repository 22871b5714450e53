"""How long a program without our SDK must be silent before it counts as ready. Pure; the caller keeps the timers.

Such a program never sends `ready`.
"""

from __future__ import annotations

from iii.engine.routing.peer import Owner, Peer
from iii.protocol.messages import RegisterFunction

# Seconds without a message after which a program that has registered functions is ready.
REGISTRATION_DEBOUNCE = 0.1
# Seconds after which a program that has registered nothing (a build watcher, a server) counts as up. Long, because a
# runtime may start slowly on a busy machine and connect by itself later: ready too early, calls to it would fail.
SILENCE_TIMEOUT = 3.0


def readiness_timeout(owner: Owner, peers: list[Peer], *, is_adopted: bool) -> float | None:
    """Return after how many seconds of silence a foreign worker is ready; None if silence says nothing.

    Silence says nothing while a worker that has connected over WebSocket before has not done so again (`is_adopted`). A
    worker that lacks functions of its predecessor has probably not registered everything: promoted too early, it would
    take them away.
    """
    staged = {message.id for peer in peers for message in peer.staged if isinstance(message, RegisterFunction)}
    serving = {function.id for peer in owner.peers for function in peer.functions}
    if owner.has_own_connections and not is_adopted:
        return None
    return REGISTRATION_DEBOUNCE if staged and serving <= staged else SILENCE_TIMEOUT
