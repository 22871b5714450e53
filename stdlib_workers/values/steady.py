"""The clock that no setting of the wall clock moves, for what is due at a time."""

from __future__ import annotations

import time

# Counts the time of suspension too, where the system has it.
_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def steady() -> float:
    """Return seconds since some moment, those in which the machine slept included where the system counts them."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)
