"""Time for the queue: milliseconds since the epoch, on a clock that is not set while the process runs."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, time


class Clock:
    """Reads the `wall` clock once, then only the `steady` one, both in seconds. A stepped wall clock moves no retry."""

    def __init__(self, wall: Callable[[], float] = time, steady: Callable[[], float] = monotonic) -> None:
        self._steady = steady
        self._offset = wall() - steady()

    def __call__(self) -> int:
        """Return the time now."""
        return int((self._steady() + self._offset) * 1000)
