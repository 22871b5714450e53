"""A second backend with the methods of `SqliteKeyValue`, of dicts: shows that they need no SQLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iii import InvocationError
from stdlib_workers.storage import Change, Decide, Entry, JournalEntry, Pending, Row
from stdlib_workers.storage.pending import settled
from stdlib_workers.storage.sqlite_keyvalue import Announce

Appended = Callable[[list[JournalEntry]], None]
Watch = Callable[[Change], None]


class MemoryJournal:
    """Lines in a list."""

    def __init__(self) -> None:
        self._lines: list[JournalEntry] = []
        self._last = 0

    def append(self, lines: Sequence[tuple[str, bytes]], then: Appended | None = None) -> Pending[list[JournalEntry]]:
        """Add lines."""
        added = self.add(lines)
        if then is not None:
            then(added)
        return settled(added)

    def add(self, lines: Sequence[tuple[str, bytes]]) -> list[JournalEntry]:
        """Add lines and return them with their positions."""
        added = [JournalEntry(self._last + number, *line) for number, line in enumerate(lines, 1)]
        self._last += len(added)
        self._lines += added
        return added

    def read(self, topic: str, after: int, limit: int) -> Pending[list[JournalEntry]]:
        """Return lines of a topic."""
        return settled([line for line in self._lines if line.topic == topic and line.position > after][:limit])

    def last(self) -> Pending[int]:
        """Return the newest position."""
        return settled(self._last)

    def remove(self, positions: Sequence[int]) -> Pending[None]:
        """Forget lines."""
        return self.replace(positions, ())

    def replace(self, positions: Sequence[int], lines: Sequence[tuple[str, bytes]]) -> Pending[None]:
        """Put lines in the place of others."""
        self._lines = [line for line in self._lines if line.position not in set(positions)]
        self.add(lines)
        return settled(None)

    def drop_first(self, topic: str, count: int) -> Pending[None]:
        """Forget the oldest lines of a topic."""
        return self.remove([line.position for line in self._lines if line.topic == topic][:count])


class MemoryKeyValue:
    """Entries in a dict; every write is as durable as the process."""

    def __init__(self) -> None:
        self._journal = MemoryJournal()
        # (position of the first write, entry) by bucket and key.
        self._rows: dict[tuple[str, str], tuple[int, Entry]] = {}
        self._watchers: list[Watch] = []
        self._writes = 0

    @property
    def journal(self) -> MemoryJournal:
        """The journal beside the keys."""
        return self._journal

    def recent(self, bucket: str, key: str) -> Entry | None:
        """Return an entry."""
        found = self._rows.get((bucket, key))
        return None if found is None else found[1]

    def get(self, bucket: str, key: str, then: Callable[[Entry | None], None] | None = None) -> Pending[Entry | None]:
        """Return an entry."""
        found = self.recent(bucket, key)
        if then is not None:
            then(found)
        return settled(found)

    def put(self, bucket: str, key: str, value: bytes) -> Pending[Change]:
        """Write a value."""
        return self.update(bucket, key, lambda _: value)

    def update(self, bucket: str, key: str, decide: Decide, announce: Announce | None = None) -> Pending[Change]:
        """Write what is decided."""
        try:
            return settled(self._write([(bucket, key, decide)], announce)[0])
        except InvocationError as error:
            return settled(None, error)

    def update_all(
        self, writes: Sequence[tuple[str, str, Decide]], announce: Announce | None = None
    ) -> Pending[list[Change]]:
        """Write all or nothing."""
        try:
            return settled(self._write(writes, announce))
        except InvocationError as error:
            return settled(None, error)

    def _write(self, writes: Sequence[tuple[str, str, Decide]], announce: Announce | None) -> list[Change]:
        before = dict(self._rows)
        try:
            changes = [self._change(*write) for write in writes]
        except InvocationError:
            self._rows = before
            raise
        if announce is not None:
            changes = [change._replace(journal=self._journal.add(announce(change))) for change in changes]
        for change in changes:
            for watcher in self._watchers:
                watcher(change)
        return changes

    def _change(self, bucket: str, key: str, decide: Decide) -> Change:
        old = self.recent(bucket, key)
        value = decide(old)
        if value is None:
            self._rows.pop((bucket, key), None)
            return Change(bucket, key, old, None)
        self._writes += 1
        new = Entry(value, self._writes)
        position, _ = self._rows.get((bucket, key), (self._writes, new))
        self._rows[bucket, key] = (position, new)
        return Change(bucket, key, old, new)

    def count(self, bucket: str) -> Pending[int]:
        """Return how many keys a bucket has."""
        return settled(sum(place[0] == bucket for place in self._rows))

    def buckets(self) -> Pending[list[str]]:
        """Return the buckets."""
        return settled(sorted({bucket for bucket, _ in self._rows}))

    def watch(self, callback: Watch) -> None:
        """Tell of every change."""
        self._watchers.append(callback)

    def list(self, bucket: str, after: int = 0, limit: int | None = None) -> Pending[list[Row]]:
        """Return the entries of a bucket."""
        rows = [Row(at, key, entry) for (found, key), (at, entry) in self._rows.items() if found == bucket]
        return settled(sorted(row for row in rows if row.position > after)[:limit])
