"""Which jobs were running together when a worker crashed. Lives on the dispatcher's event loop.

A job that crashed alone has crashed its worker. Of several, any may be the poison message.
"""

from __future__ import annotations

import asyncio

# The engine ends all calls of a crashed worker at once; the queue worker needs this long to read those answers.
CRASH_DEBOUNCE = 0.02


class CrashCorrelation:
    """Counts the jobs that each crash has ended."""

    def __init__(self) -> None:
        self._ended: dict[str, int] = {}

    async def is_shared(self, worker: str) -> bool:
        """Whether the crash of `worker` ended other jobs too. Call it for each job, as soon as its end is known."""
        self._ended[worker] = self._ended.get(worker, 0) + 1
        await asyncio.sleep(CRASH_DEBOUNCE)
        count = self._ended.get(worker, 0)
        # The jobs of one crash wake up within a turn or two of the loop: the count may shrink when all have read it.
        asyncio.get_running_loop().call_later(CRASH_DEBOUNCE, self._forget, worker)
        return count > 1

    def _forget(self, worker: str) -> None:
        remaining = self._ended.get(worker, 0) - 1
        if remaining > 0:
            self._ended[worker] = remaining
        else:
            self._ended.pop(worker, None)
