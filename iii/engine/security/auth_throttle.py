"""Delays the rejection of wrong tokens: an address that is wrong often waits for each further answer. Pure.

The token has 256 bits and needs no throttle to stay secret; the throttle keeps guesses from costing engine time.
"""

from __future__ import annotations

# Seconds in which rejections are counted, and how many of them are answered at once.
COUNTING_INTERVAL, MAX_AT_ONCE = 1.0, 10
# How long every further answer waits.
ANSWER_TIMEOUT = 1.0
# Addresses that are remembered; the count of the oldest is forgotten first.
MAX_ADDRESSES = 1024


class AuthThrottle:
    """Counts rejections by address. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<Throttle of {len(self._windows)} addresses>"

    def delay(self, address: str, now: float) -> float:
        """Count one more rejection; return the seconds that its answer has to wait."""
        since, count = self._windows.pop(address, (now, 0))
        if now - since >= COUNTING_INTERVAL:
            since, count = now, 0
        self._windows[address] = (since, count + 1)
        if len(self._windows) > MAX_ADDRESSES:
            del self._windows[next(iter(self._windows))]
        return ANSWER_TIMEOUT if count >= MAX_AT_ONCE else 0.0
