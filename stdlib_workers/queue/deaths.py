"""Which jobs were running together when a worker died. Used by `dispatcher` on its event loop."""

from __future__ import annotations

import asyncio

# The engine tells of all calls of a dead worker at once; this is for the time it takes to read them.
GATHERING_SECONDS = 0.02


class Deaths:
    """Counts the jobs that each death has ended."""

    def __init__(self) -> None:
        self._dead: dict[str, int] = {}

    async def in_company(self, worker: str) -> bool:
        """Whether other jobs died with this one. Call it for each of them, as soon as its end is known."""
        self._dead[worker] = self._dead.get(worker, 0) + 1
        await asyncio.sleep(GATHERING_SECONDS)
        count = self._dead.get(worker, 0)
        # Those of the same death wake in the same turn of the loop, or the next: forgotten only after them.
        asyncio.get_running_loop().call_later(GATHERING_SECONDS, self._forget, worker)
        return count > 1

    def _forget(self, worker: str) -> None:
        left = self._dead.get(worker, 0) - 1
        if left > 0:
            self._dead[worker] = left
        else:
            self._dead.pop(worker, None)
