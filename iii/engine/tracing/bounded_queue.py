"""What waits to be handed over, bounded by count and bytes; over a bound the newest is dropped and counted. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """A queue of items with their sizes in bytes."""

    def __init__(self, count: int, size: int) -> None:
        self._most = count
        self._largest = size
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Backlog {len(self)} items, {self._size} bytes, {self.dropped} dropped>"

    @property
    def is_full(self) -> bool:
        """Whether the next item would be dropped whatever it is."""
        return len(self._items) >= self._most or self._size >= self._largest

    def add(self, item: T, size: int) -> None:
        """Let an item wait, or drop it."""
        if len(self._items) >= self._most or self._size + size > self._largest:
            self.dropped += 1
        else:
            self._items.append((item, size))
            self._size += size

    def take(self, count: int, size: int) -> list[T]:
        """Hand over the oldest items, at most `count` of together `size` bytes, but at least one."""
        taken: list[T] = []
        while self._items and len(taken) < count and (not taken or self._items[0][1] <= size):
            item, cost = self._items.popleft()
            self._size -= cost
            size -= cost
            taken.append(item)
        return taken

    def take_dropped(self) -> int:
        """Return how many were dropped since the last time."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def clear(self) -> None:
        """Forget all."""
        self._items.clear()
        self._size = 0
        self.dropped = 0
