"""How far a generator may run ahead of the caller that takes its items: both halves of one streamed call.

The caller names a number of items. The callee waits while that many items, or a mebibyte of them, were sent and not
yet taken. So a slow caller costs no memory on either side, and none in the engine, which keeps reading every peer.
"""

from __future__ import annotations

from collections import deque
from threading import Condition

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

# Enough that a caller on the same machine finds the next item waiting.
WINDOW_ITEMS = 64
# Items may be large: this many bytes of them fill the window too.
WINDOW_BYTES = 1024 * 1024


class ItemWindow:
    """The callee's half. A caller that names no number (`items` is None) is sent everything at once."""

    def __init__(self, items: int | None) -> None:
        self._items = items
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._is_over = False
        self._changed = Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def is_full(self) -> bool:
        if self._items is None or self._is_over:
            return False
        return len(self._sizes) >= self._items or self._bytes >= WINDOW_BYTES

    def sent(self, size: int) -> None:
        """Count an item of `size` bytes as sent and not yet taken."""
        if self._items is not None:
            with self._changed:
                self._sizes.append(size)
                self._bytes += size

    def taken(self, count: int) -> None:
        with self._changed:
            for _ in range(min(count, len(self._sizes))):
                self._bytes -= self._sizes.popleft()
            self._wake_if_room()

    def end(self) -> None:
        """Open the window for good: the caller takes nothing any more, and the generator shall find that out."""
        with self._changed:
            self._is_over = True
            self._wake_if_room()

    def _wake_if_room(self) -> None:
        if self.is_full:
            return
        self._changed.notify_all()
        if self._waiter is not None:
            (loop, room), self._waiter = self._waiter, None
            if not loop.is_closed():
                loop.call_soon_threadsafe(room.set)

    def wait(self) -> None:
        """Block until the window has room."""
        with self._changed:
            self._changed.wait_for(lambda: not self.is_full)

    async def wait_async(self) -> None:
        """As `wait`, without blocking the loop."""
        import asyncio  # loaded by the loop this runs on

        room = asyncio.Event()
        with self._changed:
            if not self.is_full:
                return
            self._waiter = asyncio.get_running_loop(), room
        await room.wait()


class TakenItems:
    """The caller's half: reports the items it took, every quarter of a window, and before it waits for more."""

    def __init__(self, invocation_id: Any, send: Callable[[dict[str, Any]], None]) -> None:
        self._invocation_id = invocation_id
        self._send = send
        self._count = 0

    def add(self) -> None:
        self._count += 1
        if self._count >= WINDOW_ITEMS // 4:
            self.report()

    def report(self) -> None:
        if self._count:
            count, self._count = self._count, 0
            self._send({"type": "itemstaken", "invocation_id": self._invocation_id, "count": count})
