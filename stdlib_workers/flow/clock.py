"""The clock by which runs are due: milliseconds since the epoch, which goes on while a laptop sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable

from stdlib_workers.values.steady import steady

LONGEST_TIMER = 60.0


class Clock:
    """Reads the `wall` clock once, then only the `steady` one, both in seconds: setting the wall clock moves no due.

    `longest_timer`: timers run on a clock that may stand still while a laptop sleeps, so what is due is looked for at
    least so often, in seconds, while anything waits for its time.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady,
        *,
        longest_timer: float = LONGEST_TIMER,
    ) -> None:
        self._steady = steady
        self._offset = wall() - steady()
        self.longest_timer = longest_timer

    def __call__(self) -> int:
        return round((self._steady() + self._offset) * 1000)
