"""How long the answer to a wrong token waits: who is wrong often has to wait for every further answer. Pure.

The token has 256 bits; this is not what keeps it secret, but guessing shall not cost the engine its time either.
Called by the gateway and by `connection_check.py` for every refusal of a stranger.
"""

from __future__ import annotations

# Seconds in which refusals are counted, and how many of them are answered at once.
WINDOW, AT_ONCE = 1.0, 10
# Seconds the answers after that wait.
DELAY = 1.0
# Addresses that are remembered; older ones begin anew.
MAX_KNOWN = 1024


class Throttle:
    """Counts refusals by address. `now` is any clock in seconds that only goes forward."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<Throttle of {len(self._windows)} addresses>"

    def delay(self, address: str, now: float) -> float:
        """Note one more refusal; return the seconds its answer has to wait."""
        since, count = self._windows.pop(address, (now, 0))
        if now - since >= WINDOW:
            since, count = now, 0
        self._windows[address] = (since, count + 1)
        if len(self._windows) > MAX_KNOWN:
            del self._windows[next(iter(self._windows))]
        return DELAY if count >= AT_ONCE else 0.0
