"""The clock by which standard workers say when something is due: it goes on while a machine sleeps, and never back."""

from __future__ import annotations

import time
from collections.abc import Callable

# How often the wall clock is looked at, and how far it may be ahead without anything being wrong; in seconds. Timers
# may stand still while a machine sleeps, so a worker that waits for a time reads the clock at least as often.
WALL_INTERVAL = 60.0
WALL_TOLERANCE = 1.0

# Counts the time of suspension too, where the system has it.
_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def steady() -> float:
    """Return seconds since some moment, those in which the machine slept included where the system counts them."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


class Clock:
    """Milliseconds since the epoch, by the `steady` clock; both clocks are in seconds. It never goes back.

    A wall clock that is set back while the process runs moves nothing that is due. One that is ahead, looked at once a
    minute, is followed: the machine has slept without the steady clock counting that, or the wall clock was wrong when
    the process started. What is due by then is late already.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = steady) -> None:
        self._wall = wall
        self._steady = steady
        self._checked = steady()
        self._offset = wall() - self._checked

    def __call__(self) -> int:
        """Return the time. Safe on any thread."""
        now = self._steady()
        if now - self._checked >= WALL_INTERVAL:
            self._checked = now
            offset = self._wall() - now
            if offset > self._offset + WALL_TOLERANCE:
                self._offset = offset
        return int((now + self._offset) * 1000)
