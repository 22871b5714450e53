"""Timers that make a process ready by its silence: programs without our SDK never send `ready`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from iii.engine.supervision.run import Run


class ReadinessTimers:
    """One timer per process that is waited for. `timeout(run)` returns the silence in seconds after which a process is
    ready, None if its silence says nothing; `on_ready(run)` is called after that silence.
    """

    def __init__(self, timeout: Callable[[Run], float | None], on_ready: Callable[[Run], None]) -> None:
        self._timeout = timeout
        self._on_ready = on_ready
        self._timers: dict[Run, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    def __contains__(self, run: Run | None) -> bool:
        return run in self._timers

    def restart(self, run: Run) -> None:
        """Wait for silence from now on."""
        self.cancel(run)
        timeout = self._timeout(run)
        if timeout is not None:
            self._timers[run] = self._loop.call_later(timeout, self._expire, run)

    def cancel(self, run: Run) -> None:
        """Wait no longer."""
        timer = self._timers.pop(run, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, run: Run) -> None:
        del self._timers[run]
        self._on_ready(run)

    def close(self) -> None:
        """Cancel every timer."""
        for run in list(self._timers):
            self.cancel(run)
