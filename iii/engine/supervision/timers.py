"""Named timers of the event loop: each counts down once, and can be armed anew or canceled by its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class Timers:
    """The timers that are counting down; `name in timers` says whether one is. Make it inside a running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending: dict[Hashable, asyncio.TimerHandle] = {}

    def __contains__(self, name: Hashable) -> bool:
        return name in self._pending

    def arm(self, name: Hashable, delay: float, action: Callable[[], None]) -> None:
        """Call `action` in `delay` seconds; a timer of this name that is counting down is replaced."""

        def expire() -> None:
            del self._pending[name]
            action()

        self.cancel(name)
        self._pending[name] = self._loop.call_later(delay, expire)

    def cancel(self, name: Hashable) -> None:
        """Cancel a timer; nothing happens if it is not counting down."""
        if timer := self._pending.pop(name, None):
            timer.cancel()

    def clear(self) -> None:
        for name in list(self._pending):
            self.cancel(name)
