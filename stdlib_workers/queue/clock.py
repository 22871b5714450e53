"""Time for the queue: milliseconds since the epoch that nobody can set while the process runs."""

from __future__ import annotations

from time import monotonic, time


class Clock:
    """Reads the wall once; from then on the monotonic clock. A stepped wall clock moves no retry."""

    def __init__(self) -> None:
        self._offset = time() - monotonic()

    def __call__(self) -> int:
        """Return the time now."""
        return int((monotonic() + self._offset) * 1000)
