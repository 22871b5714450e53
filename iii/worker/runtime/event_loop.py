"""The SDK's event loop: one thread that runs async handlers, started when the first of them is called.

All jobs of a block wake the loop once. Where the loop itself reads the wire (see `dispatcher.py`), jobs run at once.
"""

from __future__ import annotations

from collections import deque
from threading import Event, Thread, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine
    from typing import Any


class LoopThread:
    """`call` functions and `submit` coroutines from any thread.

    `on_wake(loop, thread)` is called each time another thread has had to wake the loop.
    """

    def __init__(self, on_wake: Callable[[asyncio.AbstractEventLoop, int], None]) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._started = Event()
        self._jobs: deque[Callable[[], None]] = deque()
        self._is_signalled = False
        self._on_wake = on_wake
        self._tasks: set[asyncio.Task[None]] = set()

    def is_current(self) -> bool:
        """Whether the calling thread is the loop's."""
        return self._thread is not None and self._thread.ident == get_ident()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, for code that runs on it."""
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
            assert self._thread is not None
            self._on_wake(loop, self._thread.ident or 0)

    def submit(self, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine that `start()` returns as a task of the loop."""

        def run() -> None:
            task = self.loop.create_task(start())
            self._tasks.add(task)  # a loop itself holds its tasks only weakly
            task.add_done_callback(self._tasks.discard)

        self.call(run)

    def _start(self) -> asyncio.AbstractEventLoop:
        self._thread = Thread(target=self._run, name="iii-loop", daemon=True)
        self._thread.start()
        self._started.wait()
        return self.loop

    def _run(self) -> None:
        import asyncio  # a worker without async handlers never pays for it

        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(self._started.set)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _run_jobs(self) -> None:
        # Cleared first: a job added from here on signals again.
        self._is_signalled = False
        while self._jobs:
            self._jobs.popleft()()

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call `callback` on the loop; without a loop, do nothing."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def stop(self) -> None:
        """Cancel all tasks of the loop, end its thread, and wait for that at most a second."""
        if self._loop is None or self._thread is None or self.is_current():
            return
        self.call_soon(self._cancel_all)
        self._thread.join(timeout=1.0)

    def _cancel_all(self) -> None:
        import asyncio  # loaded already

        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        waiting = asyncio.gather(*tasks, return_exceptions=True)
        waiting.add_done_callback(lambda _: self.loop.stop())
