"""Tasks that the engine cannot do without. When a mistake of ours ends one, the engine ends as well.

An engine whose watcher is dead reloads nothing, one that has lost the life of a process never starts the next: half
alive is worse than dead, since the guard kills what is left of a dead engine and starts another. The supervisor's
parts start their tasks here; the composition root says what to do last.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

EXIT_CRASHED = 70  # asks the guard for a new engine
_FATAL = "iii_fatal"


def start_critical(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task whose uncaught exception is fatal. To cancel it is not."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_report)
    return task


def end_with_critical_tasks(last: Callable[[], None], leave: Callable[[int], object] = os._exit) -> None:
    """From now on a fatal failure in the running loop is logged, `last()` is called, and the process ends with 70."""
    asyncio.get_running_loop().set_exception_handler(partial(_on_uncaught, last, leave))


def _report(task: asyncio.Task[None]) -> None:
    if task.cancelled() or (error := task.exception()) is None:
        return
    context = {"message": f"the engine has lost {task.get_name()}", "exception": error, _FATAL: True}
    task.get_loop().call_exception_handler(context)


def _on_uncaught(
    last: Callable[[], None],
    leave: Callable[[int], object],
    loop: asyncio.AbstractEventLoop,
    context: dict[str, Any],
) -> None:
    loop.default_exception_handler(context)
    if _FATAL in context:
        last()
        leave(EXIT_CRASHED)
