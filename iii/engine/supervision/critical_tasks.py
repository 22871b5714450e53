"""Critical tasks: tasks that the engine cannot work without. If one fails, the whole engine exits.

The guard (its parent process) then kills what is left and starts a new engine. That is better than going on: an engine
whose watcher has failed reloads nothing, and one that no longer waits for a process never starts the next generation.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

EXIT_CRASHED = 70  # tells the guard to start a new engine
_FATAL = "iii_fatal"


def start_critical(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task whose uncaught exception ends the engine. Cancelling the task does not."""

    def report_failure(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": f"the engine has lost {task.get_name()}", "exception": error, _FATAL: True}
            task.get_loop().call_exception_handler(context)

    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(report_failure)
    return task


def end_with_critical_tasks(before_exit: Callable[[], None], exit: Callable[[int], object] = os._exit) -> None:
    """From now on, if a critical task of the running loop fails: log it, call `before_exit()`, exit with 70."""

    def on_uncaught(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if _FATAL in context:
            before_exit()
            exit(EXIT_CRASHED)

    asyncio.get_running_loop().set_exception_handler(on_uncaught)
