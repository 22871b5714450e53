"""Spare threads: as many as the work needs, up to a bound, gone again when idle.

A pool of fixed size deadlocks as soon as its handlers call each other; this one grows instead. `run` refuses at the
bound, and its caller answers `overloaded`.
"""

from __future__ import annotations

from threading import Lock, Thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Blocked threads are cheap, but not free; beyond this something calls itself without end.
MAX_THREADS = 1024
# Bursts come back within seconds; a thread's stack need not be kept longer.
IDLE_SECONDS = 10.0


class _Spare:
    """A parked thread and the task it is woken for."""

    __slots__ = ("task", "wake")

    def __init__(self, task: Callable[[], None]) -> None:
        self.task = task
        self.wake = Lock()
        self.wake.acquire()


class ThreadPool:
    """Runs tasks on daemon threads of its own."""

    def __init__(self, limit: int = MAX_THREADS, idle_seconds: float = IDLE_SECONDS) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._parked: list[_Spare] = []
        self._count = 0
        self._counting = Lock()

    @property
    def size(self) -> int:
        """Threads alive, busy or parked."""
        return self._count

    def run(self, task: Callable[[], None]) -> bool:
        """Run `task` on another thread; False when all threads are busy and no more are allowed."""
        try:
            spare = self._parked.pop()
        except IndexError:
            return self._start(task)
        spare.task = task
        spare.wake.release()
        return True

    def close(self) -> None:
        """Let every thread end as soon as it has nothing to do."""
        self._idle_seconds = 0.0
        for _ in range(len(self._parked)):
            self.run(_nothing)

    def _start(self, task: Callable[[], None]) -> bool:
        with self._counting:
            if self._count >= self._limit:
                return False
            self._count += 1
        try:
            Thread(target=self._work, args=(_Spare(task),), name="iii-worker", daemon=True).start()
        except RuntimeError:
            # The system allows no more threads: the bound is lower than ours.
            self._leave()
            return False
        return True

    def _work(self, spare: _Spare) -> None:
        try:
            while True:
                spare.task()
                self._parked.append(spare)
                if not spare.wake.acquire(timeout=self._idle_seconds) and self._retire(spare):
                    return
        finally:
            self._leave()

    def _retire(self, spare: _Spare) -> bool:
        try:
            self._parked.remove(spare)
        except ValueError:
            # Just picked: the task is there, or about to be.
            spare.wake.acquire()
            return False
        return True

    def _leave(self) -> None:
        with self._counting:
            self._count -= 1


def _nothing() -> None:
    """The task of a thread that is only woken to find out that it may leave."""
