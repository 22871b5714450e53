"""How far a generator may run ahead of the caller that takes its items: both halves of one streamed call.

The caller names a number of items; the callee waits once so many, or a mebibyte of them, were sent and not taken. So a
caller that is slow costs neither side memory, nor the engine, which keeps reading everybody. Pure but for the waiting.
"""

from __future__ import annotations

from collections import deque
from threading import Condition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable
    from typing import Any

# Enough for a caller across the machine to find the next item there.
ITEMS = 64
# Items may be large: this many bytes of them are as good as a full window.
BYTES = 1024 * 1024


class ItemWindow:
    """The callee's half. Without `items` the caller does not say what it takes, and nothing is held back."""

    def __init__(self, items: int | None) -> None:
        self._items = items
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._is_over = False
        self._changed = Condition()
        self._waiter: tuple[AbstractEventLoop, Future[None]] | None = None

    @property
    def is_full(self) -> bool:
        """Whether the next item has to wait."""
        if self._items is None or self._is_over:
            return False
        return len(self._sizes) >= self._items or self._bytes >= BYTES

    def sent(self, size: int) -> None:
        """An item of so many bytes is on its way."""
        if self._items is not None:
            with self._changed:
                self._sizes.append(size)
                self._bytes += size

    def taken(self, count: int) -> None:
        """The caller has taken so many more."""
        with self._changed:
            for _ in range(min(count, len(self._sizes))):
                self._bytes -= self._sizes.popleft()
            self._let_go()

    def end(self) -> None:
        """Nobody takes anything any more: hold nobody back."""
        with self._changed:
            self._is_over = True
            self._let_go()

    def _let_go(self) -> None:
        if self.is_full:
            return
        self._changed.notify_all()
        if self._waiter is not None:
            loop, future = self._waiter
            self._waiter = None
            if not loop.is_closed():
                loop.call_soon_threadsafe(_complete, future)

    def wait(self) -> None:
        """Block until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_full)

    async def wait_async(self) -> None:
        """As `wait`, without blocking the loop."""
        import asyncio  # loaded by the loop this runs on

        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if not self.is_full:
                    return
                future: Future[None] = loop.create_future()
                self._waiter = (loop, future)
            await future


def _complete(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class TakenItems:
    """The caller's half: tells what was taken, now and then, and always before it waits for more."""

    def __init__(self, invocation_id: Any, send: Callable[[dict[str, Any]], None]) -> None:
        self._invocation_id = invocation_id
        self._send = send
        self._count = 0

    def add(self) -> None:
        """One more item was given to the caller's code."""
        self._count += 1
        if self._count >= ITEMS // 4:
            self.tell()

    def tell(self) -> None:
        """Let the callee know, if there is anything to know."""
        if self._count:
            count, self._count = self._count, 0
            self._send({"type": "itemstaken", "invocation_id": self._invocation_id, "count": count})
