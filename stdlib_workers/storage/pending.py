"""`Pending`: the result of a storage command that is on its way to the disk.

A lighter future: a thread waits with `result()`, a coroutine with `await`. `Store` settles a whole batch and then
wakes every event loop once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from threading import Lock
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
    """One result to come. At most one thread or coroutine waits for it."""

    __slots__ = ("_error", "_is_settled", "_lock", "_loop", "_value", "_waiter")

    def __init__(self) -> None:
        self._is_settled = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._lock: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: asyncio.Future[None] | None = None

    def result(self, timeout: float | None = None) -> T:
        """Block until the result is durable. Raises what the command raised, TimeoutError after `timeout` seconds."""
        if not self._is_settled:
            lock = Lock()
            lock.acquire()
            self._lock = lock
            # Checked again now that the lock is visible: `settle` may have run before it was.
            if not self._is_settled and not lock.acquire(timeout=-1 if timeout is None else timeout):
                raise TimeoutError("the storage has not answered in time")
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        if not self._is_settled:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            self._loop = loop
            if not self._is_settled:
                yield from self._waiter
        return self._outcome()

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def settle(self, value: Any, error: BaseException | None = None) -> None:
        """Fix the outcome and let a waiting thread go on; a coroutine goes on at the next `wake`."""
        self._value, self._error = value, error
        self._is_settled = True
        lock = self._lock
        if lock is not None and lock.locked():
            lock.release()


def settled(value: Any, error: BaseException | None = None) -> Pending[Any]:
    """Return a `Pending` that has its result already."""
    pending: Pending[Any] = Pending()
    pending.settle(value, error)
    return pending


def wake(batch: Iterable[Pending[Any]]) -> None:
    """Let the coroutines that wait for settled results go on: one wake-up for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for pending in batch:
        if pending._loop is not None and pending._waiter is not None:
            by_loop.setdefault(pending._loop, []).append(pending._waiter)
    for loop, waiters in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_complete, waiters)  # on the loop: a waiter may be canceled meanwhile


def _complete(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
