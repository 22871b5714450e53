"""Which functions jobs wait for because nobody has registered them. Used by `dispatcher` on its event loop.

The engine tells when a function is registered; in case that is missed, one job in five seconds goes and looks.
"""

from __future__ import annotations

import asyncio

from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.delivery import BATCH, Target

PROBE_SECONDS = 5.0


class Holds:
    """Functions that were missing when last tried."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waited_for: set[Target] = set()

    def note_missing(self, target: Target) -> None:
        """From now on jobs of this function step aside without being tried."""
        self._waited_for.add(target)
        self._broker.starts.missing |= {target}

    def is_waited_for(self, target: Target) -> bool:
        """Whether jobs may wait for this function, which somebody has just called."""
        return target in self._waited_for

    async def functions_added(self, function_ids: list[str]) -> None:
        """Let all jobs of these functions go on."""
        names = {function_id for _, function_id in self._waited_for} & set(function_ids)
        self._waited_for = {target for target in self._waited_for if target[1] not in names}
        self._broker.starts.missing = frozenset(self._waited_for)
        for name in names:
            while await self._broker.release(name, limit=BATCH) == BATCH:
                pass

    async def watch(self) -> None:
        """Try one job of each missing function now and then, for ever."""
        self._waited_for |= await self._broker.held()
        while True:
            for target in list(self._waited_for):
                # Not missing any more as far as we know: the job that goes finds out.
                self._broker.starts.missing -= {target}
                await self._broker.release(target[1], limit=1)
            await asyncio.sleep(PROBE_SECONDS)
