"""A queue bounded by count and bytes: an item that does not fit is dropped and counted. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A queue of items with their sizes in bytes."""

    def __init__(self, max_count: int, max_size: int) -> None:
        self._max_count = max_count
        self._max_size = max_size
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def has_room(self, size: int) -> bool:
        """Whether an item of this size would be taken."""
        return len(self._items) < self._max_count and self._size + size <= self._max_size

    def add(self, item: T, size: int) -> None:
        """Take an item of this size, or drop it."""
        if self.has_room(size):
            self._items.append((item, size))
            self._size += size
        else:
            self.dropped += 1

    def take(self, count: int, size: int) -> list[T]:
        """Remove and return the oldest items, at most `count` of together `size` bytes, but at least one."""
        taken: list[T] = []
        while self._items and len(taken) < count and (not taken or self._items[0][1] <= size):
            item, item_size = self._items.popleft()
            self._size -= item_size
            size -= item_size
            taken.append(item)
        return taken

    def take_dropped(self) -> int:
        """Return how many were dropped since the last time."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def clear(self) -> None:
        """Forget all items, and the count of dropped ones."""
        self._items.clear()
        self._size = 0
        self.dropped = 0
