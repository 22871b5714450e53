"""A thread pool that grows with its work up to a bound, and shrinks again when it is idle.

A pool of fixed size deadlocks as soon as its handlers call each other; this one starts another thread instead. At the
bound `run` refuses, and the dispatcher answers `overloaded`.
"""

from __future__ import annotations

from threading import Lock, Thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# A blocked thread is cheap, but not free; a worker with more of them calls itself without end.
MAX_THREADS = 1024
# Bursts come back within seconds; after that a thread's stack need not be kept.
IDLE_TIMEOUT = 10.0


class _PoolThread:
    """A thread's task, and the lock it waits on while it is idle."""

    __slots__ = ("task", "wake")

    def __init__(self, task: Callable[[], None]) -> None:
        self.task = task
        self.wake = Lock()
        self.wake.acquire()


class ThreadPool:
    """Runs tasks on daemon threads of its own."""

    def __init__(self, limit: int = MAX_THREADS, idle_timeout: float = IDLE_TIMEOUT) -> None:
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._idle: list[_PoolThread] = []
        self._count = 0
        self._counting = Lock()

    @property
    def size(self) -> int:
        """Threads alive, busy or idle."""
        return self._count

    def run(self, task: Callable[[], None]) -> bool:
        """Run `task` on another thread; False when all threads are busy and no more are allowed."""
        try:
            thread = self._idle.pop()
        except IndexError:
            return self._start(task)
        thread.task = task
        thread.wake.release()
        return True

    def close(self) -> None:
        """Let every thread end as soon as it has nothing to do."""
        self._idle_timeout = 0.0
        for _ in range(len(self._idle)):
            self.run(lambda: None)  # an idle thread notices the new timeout when it is woken

    def _start(self, task: Callable[[], None]) -> bool:
        with self._counting:
            if self._count >= self._limit:
                return False
            self._count += 1
        try:
            Thread(target=self._work, args=(_PoolThread(task),), name="iii-worker", daemon=True).start()
        except RuntimeError:
            # The system allows no more threads: its bound is lower than ours.
            self._uncount()
            return False
        return True

    def _work(self, thread: _PoolThread) -> None:
        try:
            while True:
                thread.task()
                self._idle.append(thread)
                if thread.wake.acquire(timeout=self._idle_timeout):
                    continue
                try:
                    self._idle.remove(thread)
                except ValueError:
                    # `run` has just picked this thread: its task is set, or about to be.
                    thread.wake.acquire()
                else:
                    return
        finally:
            self._uncount()

    def _uncount(self) -> None:
        with self._counting:
            self._count -= 1
