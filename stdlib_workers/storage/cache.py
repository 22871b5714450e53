"""Entries that were read or written lately: reading one of them needs neither a statement nor another thread.

The storage thread writes the cache, after each commit, in the order of commits; any thread reads it without a lock
(one dict lookup). It never holds what is not durable.
"""

from __future__ import annotations

from stdlib_workers.storage.keyvalue import Entry

MAX_BYTES = 64 * 1024 * 1024
# What a dict entry and its strings cost beside the value.
OVERHEAD = 200


class Cache:
    """Entries by bucket and key, the oldest dropped first when they are over `max_bytes`."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._entries: dict[tuple[str, str], Entry] = {}
        self._bytes = 0

    def find(self, bucket: str, key: str) -> Entry | None:
        """Return an entry; None means only that the cache does not hold it."""
        return self._entries.get((bucket, key))

    def keep(self, bucket: str, key: str, entry: Entry | None) -> None:
        """Hold the current entry of a key, None for a key that does not exist."""
        old = self._entries.pop((bucket, key), None)
        if old is not None:
            self._bytes -= len(old.value) + OVERHEAD
        if entry is None:
            return
        self._entries[bucket, key] = entry
        self._bytes += len(entry.value) + OVERHEAD
        while self._bytes > self._max_bytes:
            oldest = next(iter(self._entries))
            self._bytes -= len(self._entries.pop(oldest).value) + OVERHEAD

    def __repr__(self) -> str:
        return f"<Cache {len(self._entries)} entries, {self._bytes} bytes>"
