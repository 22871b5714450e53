"""The threads on which a worker's code runs: the thread pool for sync code, one event loop for async handlers.

A pool of fixed size deadlocks as soon as its handlers call each other; this one starts another thread instead, and
shrinks again when it is idle. At its bound `run` refuses, and the dispatcher answers `overloaded`.

The loop's thread starts when the first async handler is called. All jobs of a block wake the loop once. Where the loop
itself reads the wire (see `dispatcher.py`), jobs run at once.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from threading import Lock, Thread, get_ident

from iii.worker.codec.text import report
from iii.worker.runtime.forked_child import end_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any

# A blocked thread is cheap, but not free; a worker with more of them calls itself without end.
MAX_THREADS = 1024
# Bursts come back within seconds; after that a thread's stack need not be kept.
IDLE_TIMEOUT = 10.0


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[..., Any], *arguments: Any) -> None:
    """Call `callback` on a loop from another thread; do nothing if the loop is closed."""
    with suppress(RuntimeError):  # closed: the one who waited there has gone
        loop.call_soon_threadsafe(callback, *arguments)


class _PoolThread:
    """A thread's task, and the lock it waits on while it is idle."""

    __slots__ = ("task", "wake")

    def __init__(self, task: Callable[[], None]) -> None:
        self.task = task
        self.wake = Lock()
        self.wake.acquire()


class ThreadPool:
    """Runs tasks on daemon threads of its own. `size` counts the threads alive, busy or idle."""

    def __init__(self, limit: int = MAX_THREADS, idle_timeout: float = IDLE_TIMEOUT) -> None:
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._idle: list[_PoolThread] = []
        self._counting = Lock()
        self.size = 0

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
            if self.size >= self._limit:
                return False
            self.size += 1
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
                try:
                    thread.task()
                except BaseException:  # noqa: BLE001 - user code, say a listener: the next task shall find this thread
                    report("a callback has raised")
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
            self.size -= 1


class SerialExecutor:
    """Runs tasks on the threads of a pool, one after the other, in the order in which one thread adds them."""

    def __init__(self, thread_pool: ThreadPool) -> None:
        self._thread_pool = thread_pool
        self._tasks: deque[Callable[[], None]] = deque()
        self._changing = Lock()
        self._is_running = False

    def add(self, task: Callable[[], None]) -> bool:
        """Run `task` after those before it; False when the pool has no thread left to begin with it."""
        with self._changing:
            self._tasks.append(task)
            if self._is_running:
                return True
            self._is_running = True
        if self._thread_pool.run(self._run_tasks):
            return True
        self._tasks.clear()
        self._is_running = False
        return False

    def _run_tasks(self) -> None:
        while True:
            with self._changing:
                if not self._tasks:
                    self._is_running = False
                    return
                task = self._tasks.popleft()
            task()


class LoopThread:
    """`call` functions and `submit` coroutines from any thread.

    `on_wake(loop, thread)` is called each time another thread has had to wake the loop. `new_loop` makes the loop;
    without it asyncio does.
    """

    def __init__(
        self,
        on_wake: Callable[[asyncio.AbstractEventLoop, int], None],
        new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._new_loop = new_loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = Thread(target=self._run, name="iii-loop", daemon=True)
        self._jobs: deque[Callable[[], None]] = deque()
        self._is_signalled = False
        self._on_wake = on_wake
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._is_abandoned = False

    def is_current(self) -> bool:
        return self._thread.ident == get_ident()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None
        return self._loop

    def call(self, job: Callable[[], None]) -> None:
        """Run `job()` on the loop: now if this is its thread, else after the jobs before it."""
        if self.is_current():
            job()
            return
        loop = self._loop or self._start()
        self._jobs.append(job)
        if not self._is_signalled:
            self._is_signalled = True
            loop.call_soon_threadsafe(self._run_jobs)
            self._on_wake(loop, self._thread.ident or 0)

    def submit(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine that `start()` returns as a task of the loop."""

        def run() -> None:
            task = self.loop.create_task(start())
            self._tasks.add(task)  # a loop itself holds its tasks only weakly
            task.add_done_callback(self._tasks.discard)

        self.call(run)

    def _start(self) -> asyncio.AbstractEventLoop:
        import asyncio  # a worker without async handlers never pays for it

        self._loop = (self._new_loop or asyncio.new_event_loop)()
        self._thread.start()
        return self._loop

    def _run(self) -> None:
        import asyncio  # loaded already

        asyncio.set_event_loop(self.loop)
        while not self._is_stopping:
            try:
                self.loop.run_forever()  # until `stop`: a handler that stops its loop stops nobody else's
            except BaseException as error:  # noqa: BLE001 - a loop lets SystemExit and KeyboardInterrupt of tasks out
                if self._is_abandoned:
                    end_child("an async handler, and left without its event loop", error)
                report("a task or callback of the event loop has raised")
        try:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    def _run_jobs(self) -> None:
        # Cleared first: a job added from here on signals again.
        self._is_signalled = False
        while self._jobs:
            self._jobs.popleft()()

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call `callback` on the loop; without a loop, or after its end, do nothing."""
        if self._loop is not None:
            call_on(self._loop, callback, *arguments)

    def abandon(self) -> None:
        """Take the loop away from a forked child: the kernel shares what the loop waits on with the parent's."""
        self._is_abandoned = True
        selector = getattr(self._loop, "_selector", None)
        if selector is not None:
            selector.close()

    def stop(self) -> None:
        """Cancel all tasks of the loop, end its thread, and wait for that at most a second."""
        if self._loop is None or self.is_current():
            return
        self.call_soon(self._cancel_all)
        self._thread.join(timeout=1.0)

    def _cancel_all(self) -> None:
        import asyncio  # loaded already

        self._is_stopping = True
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        waiting = asyncio.gather(*tasks, return_exceptions=True)
        waiting.add_done_callback(lambda _: self.loop.stop())
