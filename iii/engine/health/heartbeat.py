"""Looks once a second whether every worker lives, and whether the engine itself was held up.

Decides nothing: `liveness.py` says who is lost. Owned by the composition root, which passes in who is watched and
what becomes of the lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from iii.engine.health.liveness import Liveness
from iii.engine.routing.peer import Peer
from iii.engine.transport.message_pump import MessagePump

PERIOD = 1.0  # seconds between two looks
# A look that is so late has a reason worth telling: a stopped machine, or something that blocked the event loop.
HELD_UP = 2.0


class Heartbeat:
    """The one clock of all doubts. `watched()` returns the peers that serve, each with whether it answers pings;
    `lost(peer, why)` is called with each that is given up, `held_up(seconds)` after a pause of the engine.
    """

    def __init__(
        self,
        pump: MessagePump,
        *,
        watched: Callable[[], Iterable[tuple[Peer, bool]]],
        lost: Callable[[Peer, str], None],
        held_up: Callable[[float], None],
    ) -> None:
        self._pump = pump
        self._liveness = Liveness(pump.router.calls)
        self._watched = watched
        self._lost = lost
        self._held_up = held_up
        self._loop = asyncio.get_running_loop()
        self._due_at = self._loop.time() + PERIOD
        self._timer = self._loop.call_at(self._due_at, self._beat)

    def __repr__(self) -> str:
        return f"<Heartbeat {self._liveness!r}>"

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        late = now - self._due_at
        self._due_at = now + PERIOD
        self._timer = self._loop.call_at(self._due_at, self._beat)
        if late > HELD_UP:
            self._pump.router.calls.counters["held_up"] += 1
            self._held_up(late)
        if self._pump.are_deadlines_paused:
            return  # in a debugger everything may stand still
        for peer, why in self._liveness.look(self._watched(), now):
            self._lost(peer, why)
        self._pump.turn()
