"""`Pipeline`: brings every batch into the archive, and then to its subscribers.

A batch that the archive cannot store is counted as dropped, and subscribers do not get it: what they are told of can
be looked up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import time_ns

from iii import InvocationError
from stdlib_workers.events import Background
from stdlib_workers.observability.ingest.batches import Batch
from stdlib_workers.observability.store.archive import Archive


class Pipeline:
    """Stores batches and publishes them. `subscribers` run on the background loop, in the order of the commits."""

    def __init__(self, archive: Archive, background: Background, clock: Callable[[], int] = time_ns) -> None:
        self.clock = clock
        self.subscribers: list[Callable[[Batch], None]] = []
        self.dropped = archive.stored_dropped
        # Lost records that are no spans, by kind; since this worker started.
        self.lost: Counter[str] = Counter()
        self.last_error: str | None = None
        self._archive = archive
        self._background = background

    async def ingest(self, batch: Batch) -> None:
        """Store a batch; return when it is committed, or lost."""
        self.lost["malformed"] += batch.malformed
        try:
            await self._archive.write(batch, lambda _: self._publish(batch))
        except InvocationError as error:
            self._fail(batch, error)
        else:
            self.last_error = None

    def ingest_blocking(self, batch: Batch) -> None:
        """Store a batch from a thread of its own. InvocationError when it is lost."""
        self.lost["malformed"] += batch.malformed
        try:
            self._archive.write(batch, lambda _: self._publish(batch)).result()
        except InvocationError as error:
            self._fail(batch, error)
            raise

    def _fail(self, batch: Batch, error: InvocationError) -> None:
        self.last_error = str(error)
        self.count_dropped(len(batch.spans))

    def count_dropped(self, spans: int) -> None:
        """Count spans that were lost, here or on their way to this worker."""
        self.dropped += spans
        if spans:
            # Queued behind the writes that wait. If even this fails, the count is right until the next start.
            self._archive.add_dropped(spans)

    def _publish(self, batch: Batch) -> None:
        # On the storage thread: no subscriber may hold that up.
        for subscriber in self.subscribers:
            self._background.call(subscriber, batch)
