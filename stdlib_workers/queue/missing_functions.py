"""The functions that jobs wait for because no worker has registered them. Lives on the dispatcher's event loop.

The engine announces each registration. An announcement can be missed, so one job of each missing function is also
tried every few seconds.
"""

from __future__ import annotations

import asyncio

from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.delivery import BATCH, Target

PROBE_INTERVAL = 5.0


class MissingFunctions:
    """Functions that were missing when a job last called them."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._missing: set[Target] = set()
        # As `_missing`, without those that a probe is trying.
        self._held_back: frozenset[Target] = frozenset()

    def __contains__(self, target: Target) -> bool:
        return target in self._missing

    def add(self, target: Target) -> None:
        """From now on let jobs of this function wait without calling it."""
        self._missing.add(target)
        self._hold_back(self._held_back | {target})

    async def on_registered(self, function_ids: list[str]) -> None:
        """Let all jobs of these functions start."""
        registered = {function_id for _, function_id in self._missing} & set(function_ids)
        self._missing = {target for target in self._missing if target[1] not in registered}
        self._hold_back(frozenset(self._missing))
        for function_id in registered:
            while await self._broker.release(function_id, limit=BATCH) == BATCH:
                pass

    async def probe(self) -> None:
        """Try one job of each missing function now and then, for ever."""
        self._missing |= await self._broker.held()
        while True:
            for target in list(self._missing):
                # The released job must start to find out whether its function is still missing.
                self._hold_back(self._held_back - {target})
                await self._broker.release(target[1], limit=1)
            await asyncio.sleep(PROBE_INTERVAL)

    def _hold_back(self, targets: frozenset[Target]) -> None:
        self._held_back = targets
        self._broker.scheduler.hold_back(targets)
