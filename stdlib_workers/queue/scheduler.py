"""Which jobs start: decided once at the end of every transaction, for all queues that its commands have changed.

The scheduler is the hook of the store's transactions. A command names the queues that it has changed, and leaves new
jobs without key and group here. Before the commit the scheduler writes those jobs with one statement and claims what
can start; after the commit it hands the started jobs on. It does not call any function: that is the dispatcher's part.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from stdlib_workers.queue.delivery import StartedJobs, Target, advance
from stdlib_workers.queue.model import Queue
from stdlib_workers.queue.new_jobs import JobRow, insert
from stdlib_workers.storage import TransactionHook


class Scheduler(TransactionHook):
    """Starts jobs of all queues. `run` names this run of the engine, `clock` gives milliseconds."""

    def __init__(self, run: str, clock: Callable[[], int]) -> None:
        self._run = run
        self._clock = clock
        self._changed: dict[int, Queue] = {}
        self._rows: list[JobRow] = []
        self._started = StartedJobs([])
        self._on_started: Callable[[StartedJobs], None] = lambda _: None
        self._bindings: dict[str, set[str]] = {}  # trigger ids by the name of a subscriber's queue
        # Jobs of these functions, and of no others, wait in state HELD instead of starting.
        self.held_back: frozenset[Target] = frozenset()
        self.is_stopping = False  # start nothing more: the process is about to end

    # For commands, on the storage thread

    def add(self, row: JobRow) -> None:
        """Write this job before the commit, or before the next command that reads jobs."""
        self._rows.append(row)

    def write_added(self, connection: sqlite3.Connection) -> None:
        if self._rows:
            insert(connection, self._rows)
            self._rows.clear()

    def reconsider(self, queues: Iterable[Queue]) -> None:
        """Start what can start in these queues before the commit."""
        # Copied in one step: it may be a view of a dict that another thread changes.
        self._changed.update((queue.id, queue) for queue in list(queues))

    # The hook of the transaction, on the storage thread

    def begin(self) -> None:
        self._changed.clear()
        self._rows.clear()

    def finish(self, connection: sqlite3.Connection) -> None:
        """Write the added jobs and start what can start."""
        self.write_added(connection)
        now = self._clock()
        by_queue = [
            advance(connection, queue, self._run, now, self.held_back)
            for queue in self._changed.values()
            if not self.is_stopping and (queue.topic is None or self._bindings.get(queue.name))
        ]
        due = min((started.due for started in by_queue if started.due is not None), default=None)
        self._started = StartedJobs([delivery for started in by_queue for delivery in started.deliveries], due)

    def committed(self) -> None:
        if self._started.deliveries or self._started.due is not None:
            self._on_started(self._started)

    # What may start, from any thread

    def deliver_to(self, on_started: Callable[[StartedJobs], None]) -> None:
        """Call `on_started`, on the storage thread, after every commit that has started jobs or knows a due time."""
        self._on_started = on_started

    def bind(self, queue_name: str, trigger_id: str) -> None:
        """Let the queue of a subscriber deliver: it does as long as a trigger is bound to it."""
        self._bindings.setdefault(queue_name, set()).add(trigger_id)

    def unbind(self, trigger_id: str) -> None:
        """Take a trigger away from its queue."""
        for trigger_ids in self._bindings.values():
            trigger_ids.discard(trigger_id)

    def count_bindings(self, queue_name: str) -> int:
        """Return how many triggers are bound to the queue of a subscriber."""
        return len(self._bindings.get(queue_name, ()))
