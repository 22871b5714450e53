"""The interface of a store of keys and of its journal, whatever the backend.

Values are JSON as bytes. A bucket holds keys in the order of their first write. The journal is a list of entries,
each of one topic, that may be appended in the same transaction as a change of a key: a transactional outbox, or a log
of events. The backend today is SQLite (`sqlite_keyvalue.py`); a NATS bucket and stream fit the interface too, with
`update` as a loop of compare-and-set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from iii import InvocationError
from stdlib_workers.storage.pending import Pending


class Entry(NamedTuple):
    """A stored value. `version` grows with every write of the store; 0 never occurs."""

    value: bytes
    version: int


class JournalEntry(NamedTuple):
    """One line of the journal. Positions grow and are never given out twice."""

    position: int
    topic: str
    body: bytes


class Change(NamedTuple):
    """One write: the entry before and after it (None for none), and the journal entries that it has appended."""

    bucket: str
    key: str
    old: Entry | None
    new: Entry | None
    journal: Sequence[JournalEntry] = ()


class Row(NamedTuple):
    """One key in a listing. The next page starts after `position`."""

    position: int
    key: str
    entry: Entry


# Decides a write: the current entry -> the new value, None to delete. Raises to leave everything as it is.
Decide = Callable[[Entry | None], bytes | None]
# What a change appends to the journal: (topic, body) pairs.
Announce = Callable[[Change], Sequence[tuple[str, bytes]]]
# Called after the commit, on the storage's thread, in the order of the commits.
Watch = Callable[[Change], None]
Appended = Callable[[list[JournalEntry]], None]


class Journal(Protocol):
    """Durable entries in the order of their commits."""

    def append(self, lines: Sequence[tuple[str, bytes]], then: Appended | None = None) -> Pending[list[JournalEntry]]:
        """Add entries, (topic, body) each, in one step. `then` gets them first, in order with what watchers get."""
        ...

    def read(self, topic: str, after: int, limit: int) -> Pending[list[JournalEntry]]:
        """Return up to `limit` entries of a topic with a position over `after`."""
        ...

    def last(self) -> Pending[int]:
        """Return the position of the newest entry ever appended, 0 for none."""
        ...

    def remove(self, positions: Sequence[int]) -> Pending[None]:
        """Forget entries, for good and only those."""
        ...

    def trim(self, topic: str, keep: int) -> Pending[None]:
        """Forget all but the last `keep` entries of a topic."""
        ...


class KeyValue(Protocol):
    """A store of keys in buckets. Every write is durable when its `Pending` has its result.

    A backend is a subclass; it gets the writes that are an `update` of one kind from here.
    """

    @property
    def journal(self) -> Journal:
        """The journal beside the keys."""
        ...

    def recent(self, bucket: str, key: str) -> Entry | None:
        """Return a durable entry that is in memory; None only means to call `get`. Safe on any thread."""
        ...

    def get(self, bucket: str, key: str, then: Callable[[Entry | None], None] | None = None) -> Pending[Entry | None]:
        """Return an entry. `then` gets it first, in order with what watchers get."""
        ...

    def put(self, bucket: str, key: str, value: bytes) -> Pending[Change]:
        """Write a value, whether the key exists or not."""
        return self.update(bucket, key, lambda _: value)

    def compare_and_set(self, bucket: str, key: str, version: int, value: bytes) -> Pending[Change]:
        """Write only over `version`, 0 for a key that must not exist. InvocationError `CONFLICT` otherwise."""

        def decide(entry: Entry | None) -> bytes:
            current = entry.version if entry else 0
            if current != version:
                text = f"the value is at version {current}, not {version}"
                raise InvocationError("CONFLICT", text, details={"version": current})
            return value

        return self.update(bucket, key, decide)

    def delete(self, bucket: str, key: str) -> Pending[Change]:
        """Remove a key; a key that does not exist is no error."""
        return self.update(bucket, key, lambda _: None)

    def update(self, bucket: str, key: str, decide: Decide, announce: Announce | None = None) -> Pending[Change]:
        """Write what `decide` makes of the entry, and append what `announce` makes of the change, in one step."""
        ...

    def update_all(
        self, writes: Sequence[tuple[str, str, Decide]], announce: Announce | None = None
    ) -> Pending[list[Change]]:
        """As `update` for several (bucket, key, decide) in one step: decided in order; if one raises, none is written.

        A key that is written twice is decided the second time with the result of the first.
        """
        ...

    def count(self, bucket: str) -> Pending[int]:
        """Return how many keys a bucket has."""
        ...

    def buckets(self) -> Pending[list[str]]:
        """Return the buckets that hold a key, sorted."""
        ...

    def watch(self, callback: Watch) -> None:
        """Call `callback` after every change from now on."""
        ...

    def list(self, bucket: str, after: int = 0, limit: int | None = None) -> Pending[list[Row]]:
        """Return the entries of a bucket in the order of their first write, `limit` of them after a position."""
        ...
