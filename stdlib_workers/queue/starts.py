"""What rides along with the queue's transactions: plain jobs go in together, and queues are looked at once.

The commands of one transaction say which queues they have touched, and leave jobs without key and group here; before
the commit those are written with one statement, and what can start in the touched queues is started. Made by `Broker`;
runs on the storage thread, except where an attribute is set.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from stdlib_workers.queue.delivery import Moves, Target, advance
from stdlib_workers.queue.intake import Placed, insert
from stdlib_workers.queue.model import Queue


class Starts:
    """The rider. `run` names this run of the engine, `clock` gives milliseconds."""

    def __init__(self, run: str, clock: Callable[[], int]) -> None:
        self._run = run
        self._clock = clock
        self._touched: dict[int, Queue] = {}
        self._jobs: list[Placed] = []
        self._moves = Moves([])
        # A topic's queue delivers only while somebody is bound to it: trigger ids by queue name.
        self.bound: dict[str, set[str]] = {}
        self.missing: frozenset[Target] = frozenset()
        # Set when the process is about to end: what is under way ends, nothing more starts.
        self.is_stopping = False
        self.on_moves: Callable[[Moves], None] = lambda _: None

    def touch(self, queues: Iterable[Queue]) -> None:
        """Look at these queues before the commit."""
        self._touched.update((queue.id, queue) for queue in queues)

    def gather(self, job: Placed) -> None:
        """Write this job before the commit, or before a command that looks at jobs."""
        self._jobs.append(job)

    def flush(self, connection: sqlite3.Connection) -> None:
        """Write the jobs now."""
        if self._jobs:
            insert(connection, self._jobs)
            self._jobs.clear()

    def begin(self) -> None:
        """Forget what the last transaction has gathered."""
        self._touched.clear()
        self._jobs.clear()

    def finish(self, connection: sqlite3.Connection) -> None:
        """Write the jobs and start what can start."""
        self.flush(connection)
        now = self._clock()
        found = [
            advance(connection, queue, self._run, now, self.missing)
            for queue in self._touched.values()
            if not self.is_stopping and (queue.topic is None or self.bound.get(queue.name))
        ]
        due = min((moves.due for moves in found if moves.due is not None), default=None)
        self._moves = Moves([delivery for moves in found for delivery in moves.deliveries], due)

    def committed(self) -> None:
        """Hand the started attempts over."""
        if self._moves.deliveries or self._moves.due is not None:
            self.on_moves(self._moves)

    def __repr__(self) -> str:
        return f"<Starts {len(self._touched)} queues touched, {len(self._jobs)} jobs gathered>"
