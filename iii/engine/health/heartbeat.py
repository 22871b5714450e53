"""The two checks that run once a second: whether workers still work, and whether peers read what they are sent.

The decisions are those of `liveness` and `slow_consumers`; here are their timers. The caller passes in which peers to
check, and what to do with the ones that fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from iii.engine.health.liveness import Liveness
from iii.engine.health.slow_consumers import SlowConsumers
from iii.engine.routing.calls import Calls
from iii.engine.routing.peer import Peer
from iii.engine.transport.message_pump import MessagePump

CHECK_INTERVAL = 1.0
# Seconds by which a check is late when the user should hear of it: the machine slept, or the event loop was blocked.
HELD_UP_TIMEOUT = 2.0


class Heartbeat:
    """Checks that every serving worker still works, and notices when the engine itself was held up.

    `serving()` returns the peers of the serving workers, each with whether it answers pings; `on_lost(peer, why)` is
    called with each that no longer works, `on_held_up(seconds)` after a pause of the engine.
    """

    def __init__(
        self,
        pump: MessagePump,
        *,
        serving: Callable[[], Iterable[tuple[Peer, bool]]],
        on_lost: Callable[[Peer, str], None],
        on_held_up: Callable[[float], None],
    ) -> None:
        self._pump = pump
        self._liveness = Liveness(pump.router.calls)
        self._serving = serving
        self._on_lost = on_lost
        self._on_held_up = on_held_up
        self._loop = asyncio.get_running_loop()
        self._due_at = self._loop.time() + CHECK_INTERVAL
        self._timer = self._loop.call_at(self._due_at, self._beat)

    def __repr__(self) -> str:
        return f"<Heartbeat {self._liveness!r}>"

    def stop(self) -> None:
        """Stop checking."""
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        late = now - self._due_at
        self._due_at = now + CHECK_INTERVAL
        self._timer = self._loop.call_at(self._due_at, self._beat)
        if late > HELD_UP_TIMEOUT:
            self._pump.router.calls.counters["held_up"] += 1
            self._on_held_up(late)
        if self._pump.are_deadlines_paused:
            return  # a worker that stands still may be in a debugger
        for peer, why in self._liveness.check(self._serving(), now):
            self._on_lost(peer, why)
        self._pump.turn()


class SlowConsumerCheck:
    """Checks that all `peers()` read what they are sent; `on_slow(peer, why)` is called with each that does not."""

    def __init__(
        self, calls: Calls, *, peers: Callable[[], Iterable[Peer]], on_slow: Callable[[Peer, str], None]
    ) -> None:
        self._calls = calls
        self._peers = peers
        self._on_slow = on_slow
        self._slow_consumers = SlowConsumers()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(CHECK_INTERVAL, self._check)

    def stop(self) -> None:
        """Stop checking."""
        self._timer.cancel()

    def _check(self) -> None:
        self._timer = self._loop.call_later(CHECK_INTERVAL, self._check)
        for peer, why in self._slow_consumers.check(self._peers(), self._has_live_call):
            self._on_slow(peer, why)

    def _has_live_call(self, callee: Peer) -> bool:
        return any(call.callee is callee and not call.is_abandoned for call in self._calls.in_flight.values())
