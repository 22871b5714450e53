"""Tasks that must run one after the other, on whatever thread is free.

A provider hears of its bindings in the order of the wire, however long it takes with each. Used by the receiver.
"""

from __future__ import annotations

from collections import deque
from threading import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Lane:
    """`add` tasks from one thread; they run in that order, never two at a time."""

    def __init__(self, run_elsewhere: Callable[[Callable[[], None]], bool]) -> None:
        self._run_elsewhere = run_elsewhere
        self._tasks: deque[Callable[[], None]] = deque()
        self._changing = Lock()
        self._is_busy = False

    def add(self, task: Callable[[], None]) -> bool:
        """Run `task` after those before it; False when no thread is left to begin with it."""
        with self._changing:
            self._tasks.append(task)
            if self._is_busy:
                return True
            self._is_busy = True
        if self._run_elsewhere(self._drain):
            return True
        self._tasks.clear()
        self._is_busy = False
        return False

    def _drain(self) -> None:
        while True:
            with self._changing:
                if not self._tasks:
                    self._is_busy = False
                    return
                task = self._tasks.popleft()
            task()
