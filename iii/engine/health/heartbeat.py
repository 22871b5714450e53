"""The checks once a second: whether workers still work, whether peers read what they are sent, what memory is free.

The decisions are those of `liveness`; here is their timer. The caller passes in which peers to check, and what to do
with the ones that fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from iii.engine.health.freed_memory import FreedMemory
from iii.engine.health.liveness import Liveness, SlowConsumers
from iii.engine.routing.peer import Peer
from iii.engine.transport.message_pump import MessagePump

CHECK_INTERVAL = 1.0
# Seconds by which a check is late when the user should hear of it: the machine slept, or the event loop was blocked.
HELD_UP_TIMEOUT = 2.0


class Heartbeat:
    """Checks that every serving worker still works, that all peers read, and that the engine was not held up itself.

    `serving()` returns the peers of the serving workers, each with whether it answers pings; `on_lost(peer, why)` is
    called with each that no longer works. `peers()` returns every peer to write to; `on_slow(peer, why)` is called with
    each that does not read. `on_held_up(seconds)` is called after a pause of the engine.
    """

    def __init__(
        self,
        pump: MessagePump,
        *,
        serving: Callable[[], Iterable[tuple[Peer, bool]]],
        peers: Callable[[], Iterable[Peer]],
        on_lost: Callable[[Peer, str], None],
        on_slow: Callable[[Peer, str], None],
        on_held_up: Callable[[float], None],
    ) -> None:
        self._pump = pump
        self._calls = pump.router.calls
        self._serving = serving
        self._peers = peers
        self._on_lost = on_lost
        self._on_slow = on_slow
        self._on_held_up = on_held_up
        self._liveness = Liveness(self._calls)
        self._slow_consumers = SlowConsumers()
        self._freed_memory = FreedMemory()
        self._are_workers_checked = True
        self._loop = asyncio.get_running_loop()
        self._due_at = self._loop.time() + CHECK_INTERVAL
        self._timer = self._loop.call_at(self._due_at, self._check)

    def stop_checking_workers(self) -> None:
        """From now on only check that peers read: workers are being stopped, and must not be replaced."""
        self._are_workers_checked = False

    def stop(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        late = now - self._due_at
        self._due_at = now + CHECK_INTERVAL
        self._timer = self._loop.call_at(self._due_at, self._check)
        for peer, why in self._slow_consumers.check(self._peers(), self._has_live_call):
            self._on_slow(peer, why)
        self._freed_memory.check(self._calls.budget.used)
        if not self._are_workers_checked:
            return
        if late > HELD_UP_TIMEOUT:
            self._calls.counters["held_up"] += 1
            self._on_held_up(late)
        if self._pump.are_deadlines_paused:
            return  # a worker that stands still may be in a debugger
        for peer, why in self._liveness.check(self._serving(), now):
            self._on_lost(peer, why)
        self._pump.turn()

    def _has_live_call(self, callee: Peer) -> bool:
        calls = self._calls.in_flight.values()
        return any(call.callee is callee and not (call.is_abandoned or call.is_overdue) for call in calls)
