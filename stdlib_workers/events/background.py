"""An event loop on a thread of its own, for work that no call waits for: deliveries and listeners.

Tasks start in an empty context: their calls must not count as part of the invocation that caused them, nor end with
its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Background:
    """The loop: a new one, which runs until `stop` or the end of the process, or `loop`, which runs already."""

    def __init__(self, name: str = "iii-background", *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread: Thread | None = None
        if loop is not None:
            return
        started = Event()
        self.loop.call_soon(started.set)
        self._thread = Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()
        started.wait()

    def call(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call `callback` on the loop, from any thread."""
        self.loop.call_soon_threadsafe(callback, *arguments, context=Context())

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine as a task; only on the loop itself."""
        task = self.loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wait(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine and block until it has ended; only on another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def stop(self) -> None:
        """Cancel every task, and end the loop if it is this object's own."""

        async def cancel() -> None:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.wait(cancel())
        if self._thread is None:
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
