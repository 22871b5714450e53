"""Notices a worker that reloads itself for ever: its own start rewrites a file that it is watched for."""

from __future__ import annotations


class LoopGuard:
    """Notices a worker whose start rewrites a file that it is watched for: without an end, it would reload
    for ever.

    Only changes made while a generation of the worker was starting count; saves at any other time never do.
    """

    LIMIT = 5  # reloads of its own making
    WINDOW = 10.0  # in as many seconds

    def __init__(self) -> None:
        self._times: dict[str, tuple[float, ...]] = {}

    def allows(self, worker: str, now: float) -> bool:
        """Count a change of the worker's own making; return whether to reload it once more."""
        recent = tuple(time for time in self._times.get(worker, ()) if now - time < self.WINDOW)
        if len(recent) >= self.LIMIT:
            self._times[worker] = recent
            return False
        self._times[worker] = (*recent, now)
        return True
