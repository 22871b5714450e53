"""Notices a worker that reloads itself for ever, because its own start rewrites a file that it is watched for. Pure."""

from __future__ import annotations

MAX_OWN_RELOADS = 5  # within the window
OWN_RELOAD_WINDOW = 10.0  # seconds


class LoopGuard:
    """Counts the reloads that each worker causes itself: changes made while one of its generations was starting.

    Saves at any other time do not count.
    """

    def __init__(self) -> None:
        self._times: dict[str, tuple[float, ...]] = {}

    def allows(self, worker: str, now: float) -> bool:
        """Count a change that the worker's start has made; return whether to reload the worker once more."""
        recent = tuple(time for time in self._times.get(worker, ()) if now - time < OWN_RELOAD_WINDOW)
        is_allowed = len(recent) < MAX_OWN_RELOADS
        self._times[worker] = (*recent, now) if is_allowed else recent
        return is_allowed
