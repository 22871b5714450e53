"""Finds and kills what a dead worker left behind.

Reading every process costs milliseconds, so it happens in a thread, and workers that die together share one
reading. Called by `generation.py` between a worker's death and its burial.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from iii.engine.supervision import procfs
from iii.engine.supervision.process import kill_pids
from iii.engine.supervision.procfs import Entry

# How long the killed may take to vanish. Longer only happens in uninterruptible waits (a dead network file
# system).
PATIENCE = 2.0
PAUSE = 0.01  # between two looks


class OrphanCleanup:
    """Shared readings of the process table."""

    def __init__(self, read: Callable[[], list[Entry]] = procfs.entries) -> None:
        self._read = read
        self._next: asyncio.Task[list[Entry]] | None = None
        self._turn = asyncio.Lock()

    async def take(self) -> list[Entry]:
        """Return a reading that began after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._take())
        return await asyncio.shield(self._next)

    async def _take(self) -> list[Entry]:
        async with self._turn:
            self._next = None
            return await asyncio.to_thread(self._read)

    async def clear(self, leader: int, marks: frozenset[bytes], *, keep_children: bool = False) -> tuple[int, ...]:
        """Kill everything that belongs to a dead, unreaped `leader`; return when it is gone.

        That is its group, and unless `keep_children` every process whose environment carries all `marks`.
        Returns the pids that are left: kept on purpose, or not to be killed within PATIENCE.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            left = belonging(await self.take(), leader, marks)
            doomed = [entry.pid for entry in left if not keep_children or entry.group == leader]
            if not doomed or time.monotonic() > deadline:
                return tuple(entry.pid for entry in left)
            kill_pids(doomed)
            await asyncio.sleep(PAUSE)


def belonging(entries: list[Entry], leader: int, marks: frozenset[bytes]) -> list[Entry]:
    """Return the living processes of the leader's group and those that carry all its marks, the leader left
    out.
    """
    return [
        entry
        for entry in entries
        if entry.is_alive and entry.pid != leader and (entry.group == leader or (bool(marks) and marks <= entry.marks))
    ]
