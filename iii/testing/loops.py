"""Event loops that say when they rest, and the clock that a test moves by hand.

`Activity` counts what goes on in one engine. A loop rests while it waits in `select` and no other thread has woken it
since; so does a worker that waits for its next line.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from threading import Event, RLock
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")


class Activity:
    """What works for one engine. Each part is a callable that says what it has seen, None while it works.

    What a resting part has seen changes whenever it was woken: equal answers before and after mean that it has rested.
    """

    def __init__(self) -> None:
        self._parts: list[Callable[[], int | None]] = []
        self._rested = Event()

    def watch(self, seen: Callable[[], int | None]) -> None:
        """Count another part in."""
        self._parts.append(seen)

    def rest(self) -> None:
        """Tell the waiting thread that a part rests now."""
        self._rested.set()

    def seen(self) -> list[int] | None:
        """Return what all parts have seen, None while one of them works."""
        seen = [part() for part in tuple(self._parts)]
        return None if None in seen else seen  # type: ignore[return-value]

    def wait(self, seconds: float) -> None:
        """Wait until a part begins to rest, at most so long."""
        self._rested.wait(seconds)
        self._rested.clear()


class _Selector(selectors.DefaultSelector):
    """A loop's selector, which knows how often other threads have woken the loop, and whether it rests since.

    `waking` is held while another thread wakes the loop: what is counted when the loop looks for work is there to find.
    `is_timeless`: timers end no wait, because their clock stands still meanwhile.
    """

    def __init__(self, activity: Activity, *, is_timeless: bool) -> None:
        super().__init__()
        self._activity = activity
        self._is_timeless = is_timeless
        self._waking = RLock()
        self._wakes = 0
        self._rested_at = -1
        self._is_closed = False

    @contextmanager
    def waking(self) -> Iterator[None]:
        """Count a wake-up from another thread."""
        with self._waking:
            self._wakes += 1
            yield

    def seen(self) -> int | None:
        """Return how often the loop was woken, None while it works. A closed one rests."""
        wakes = self._wakes
        return wakes if self._is_closed or self._rested_at == wakes else None

    def close(self) -> None:
        self._is_closed = True
        super().close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        with self._waking:
            wakes = self._wakes
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        self._rested_at = wakes
        self._activity.rest()
        ready = super().select(None if self._is_timeless else timeout)
        self._rested_at = -1
        return ready


class WatchedLoop(asyncio.SelectorEventLoop):
    """A loop whose rest its engine's activity knows of."""

    def __init__(self, activity: Activity, *, is_timeless: bool = False) -> None:
        self._watched = _Selector(activity, is_timeless=is_timeless)
        super().__init__(self._watched)
        activity.watch(self._watched.seen)

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        with self._watched.waking():
            return super().call_soon_threadsafe(callback, *args, context=context)


class ClockLoop(WatchedLoop):
    """A loop whose time stands still until `now` is moved: sleeps, timeouts and timers wait for that alone."""

    def __init__(self, activity: Activity) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        super().__init__(activity, is_timeless=True)

    def time(self) -> float:
        """Return the seconds that the clock has been moved by."""
        return self.now

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def next_timer(self) -> float | None:
        """Return when the next timer is due, None without one. Call it on the loop."""
        while self._timers and (self._timers[0][2].cancelled() or self._timers[0][0] <= self.now):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None
