"""`Pipeline`: the way of every batch, into the archive and then to all who follow. Called by the feed and the receiver.

A batch that cannot be stored is counted as dropped and goes no further: nobody is told of what nobody can look up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import time_ns
from typing import Any

from iii import InvocationError
from stdlib_workers.events import Background
from stdlib_workers.observability.ingest.batches import Intake
from stdlib_workers.observability.store.archive import Archive, Batch

Follower = Callable[[Intake], None]


class Pipeline:
    """Writes intakes and announces them; `followers` run on the background loop, in the order of the commits."""

    def __init__(self, archive: Archive, background: Background, clock: Callable[[], int] = time_ns) -> None:
        self.clock = clock
        self.followers: list[Follower] = []
        self.dropped = archive.dropped().result()
        # Lost records that are no spans, by kind; since this worker started.
        self.lost: Counter[str] = Counter()
        self.last_error: str | None = None
        self._archive = archive
        self._background = background

    async def take(self, intake: Intake) -> None:
        """Keep a batch; returns when it is committed, or lost."""
        await self._keep(self._archive.write(_batch(intake), lambda _: self._tell(intake)), intake)

    def take_now(self, intake: Intake) -> None:
        """Keep a batch, blocking; for threads. InvocationError when it is lost."""
        try:
            self._archive.write(_batch(intake), lambda _: self._tell(intake)).result()
        except InvocationError as error:
            self.lose(len(intake.spans), error)
            raise

    async def _keep(self, pending: Any, intake: Intake) -> None:
        try:
            await pending
        except InvocationError as error:
            self.lose(len(intake.spans), error)
        else:
            self.last_error = None

    def lose(self, spans: int, error: InvocationError | None = None) -> None:
        """Count spans that were lost, here or on the way here."""
        self.dropped += spans
        if error is not None:
            self.last_error = str(error)
        if spans:
            # In order, after what waits already; when even this fails the count is right until the next start.
            self._archive.add_dropped(spans)

    def _tell(self, intake: Intake) -> None:
        # On the storage thread: no follower may hold that up.
        for follower in self.followers:
            self._background.call(follower, intake)

    def __repr__(self) -> str:
        return f"<Pipeline to {len(self.followers)} followers, {self.dropped} spans dropped>"


def _batch(intake: Intake) -> Batch:
    return Batch(intake.spans, intake.logs, intake.metrics)
