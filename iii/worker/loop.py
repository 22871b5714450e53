"""The SDK's event loop: one thread that runs async handlers, made when the first of them is called.

Submissions of a block wake the loop once; results of one turn of the loop are flushed once.
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
    """`submit` coroutines from any thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._started = Event()
        self._jobs: deque[Callable[[], Coroutine[Any, Any, None]]] = deque()
        self._is_signalled = False
        self._tasks: set[asyncio.Task[None]] = set()

    def is_current(self) -> bool:
        """Whether the calling thread is the loop's."""
        return self._thread is not None and self._thread.ident == get_ident()

    def submit(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine that `job()` makes as a task."""
        loop = self._loop or self._start()
        self._jobs.append(job)
        if not self._is_signalled:
            self._is_signalled = True
            loop.call_soon_threadsafe(self._drain)

    def _start(self) -> asyncio.AbstractEventLoop:
        self._thread = Thread(target=self._run, name="iii-loop", daemon=True)
        self._thread.start()
        self._started.wait()
        assert self._loop is not None
        return self._loop

    def _run(self) -> None:
        import asyncio  # noqa: PLC0415 - a worker without async handlers never pays for it

        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(self._started.set)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _drain(self) -> None:
        # Cleared first: a job added from here on signals again.
        self._is_signalled = False
        assert self._loop is not None
        while self._jobs:
            task = self._loop.create_task(self._jobs.popleft()())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def call_soon(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Call `callback` on the loop; nothing happens when there is no loop."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def stop(self) -> None:
        """Cancel what runs, end the thread, wait for it."""
        if self._loop is None or self._thread is None or self.is_current():
            return
        self.call_soon(self._cancel_all)
        self._thread.join(timeout=1.0)

    def _cancel_all(self) -> None:
        import asyncio  # noqa: PLC0415 - loaded already

        assert self._loop is not None
        for task in self._tasks:
            task.cancel()
        waiting = asyncio.gather(*self._tasks, return_exceptions=True)
        waiting.add_done_callback(lambda _: self._loop and self._loop.stop())
