"""Finds and kills the processes that a dead worker left behind.

Reading every process of the machine costs milliseconds, so it happens in a thread, and workers that die together share
one reading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from iii.engine.supervision import procfs
from iii.engine.supervision.process import Process, kill_entries
from iii.engine.supervision.procfs import Entry

# Seconds that killed processes may take to vanish. Only uninterruptible waits (a dead network file system) take longer.
KILL_TIMEOUT = 2.0
POLL_INTERVAL = 0.01  # seconds between two readings while killed processes vanish
# Seconds for which a descriptor is waited for, without which nobody can look. The worker does not start meanwhile.
DESCRIPTOR_TIMEOUT, DESCRIPTOR_INTERVAL = 10.0, 0.1


class OrphanCleanup:
    """Kills leftovers; shares the readings of the process table between workers that die together."""

    def __init__(self, read: Callable[[], list[Entry]] = procfs.entries) -> None:
        self._read = read
        self._next_reading: asyncio.Task[list[Entry]] | None = None
        self._is_reading = asyncio.Lock()

    async def clear(self, leader: Process, marks: frozenset[bytes], *, keep_children: bool = False) -> tuple[int, ...]:
        """Kill everything that belongs to a dead, unreaped `leader`; return when it is gone.

        That is the leader's group, and unless `keep_children` every process with the leader's tag, or whose environment
        carries all `marks`. Returns the pids that are left: kept on purpose, or still alive after KILL_TIMEOUT. Raises
        OSError when the engine could open no file, and so not look, for DESCRIPTOR_TIMEOUT.
        """
        began = time.monotonic()
        deadline = began + KILL_TIMEOUT
        while True:
            try:
                left = belonging(await self._processes(), leader.pid, leader.tag, marks)
                doomed = [entry for entry in left if not keep_children or entry.group == leader.pid]
                if not doomed or time.monotonic() > deadline:
                    return tuple(entry.pid for entry in left)
                kill_entries(doomed)
                await asyncio.sleep(POLL_INTERVAL)
            except OSError:
                if time.monotonic() - began > DESCRIPTOR_TIMEOUT:
                    raise
                await asyncio.sleep(DESCRIPTOR_INTERVAL)
                deadline = time.monotonic() + KILL_TIMEOUT

    async def _processes(self) -> list[Entry]:
        """Return a reading that began after this call."""

        async def read() -> list[Entry]:
            async with self._is_reading:
                self._next_reading = None
                return await asyncio.to_thread(self._read)

        if self._next_reading is None:
            self._next_reading = asyncio.create_task(read())
        return await asyncio.shield(self._next_reading)


def belonging(entries: list[Entry], leader: int, tag: int, marks: frozenset[bytes]) -> list[Entry]:
    """Return the living processes in the leader's group, with its tag or with all of its marks; not the leader."""
    return [
        entry
        for entry in entries
        if entry.is_alive
        and entry.pid != leader
        and (entry.group == leader or (tag and entry.tag == tag) or (bool(marks) and marks <= entry.marks))
    ]
