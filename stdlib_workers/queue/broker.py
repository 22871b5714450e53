"""The queue's transactions, one method each: intake, settling, administration, over one `Store`.

Whatever makes room or work touches its queues; at the end of the same transaction `Starts` looks once what can start
in them, and hands the started attempts over once they are durable. That happens on the storage thread, so an enqueue
whose caller gives up cannot lose an attempt that it has started. Called by `functions` (from outside) and `dispatcher`
(the ends of attempts).
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from uuid import uuid4

from stdlib_workers.queue import admin, catalog, dead
from stdlib_workers.queue.delivery import Target, held_targets, recover, release, settle
from stdlib_workers.queue.intake import enqueue, forget_keys, is_plain, plain
from stdlib_workers.queue.model import Delivery, NewJob, Queue, QueueConfig, State, Verdict
from stdlib_workers.queue.starts import Starts
from stdlib_workers.storage import Pending, Store

T = TypeVar("T")
Work = Callable[[sqlite3.Connection, int], T]


def _none(_: object) -> tuple[Queue, ...]:
    return ()


class Broker:
    """All queues of one store. `run` names this run of the engine, `clock` gives milliseconds."""

    def __init__(self, store: Store, run: str, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self.queues: dict[str, Queue] = {}
        self.starts = Starts(run, clock)
        store.attach(self.starts)

    def _apply(self, work: Work[T], touched: Callable[[T], Iterable[Queue]] = _none) -> Pending[T]:
        """Run `work(connection, now)`; at the end of its transaction, what can start in the queues it has touched."""

        def command(connection: sqlite3.Connection) -> T:
            self.starts.flush(connection)
            result = work(connection, self._clock())
            self.starts.touch(touched(result))
            return result

        return self._store.run(command)

    def start(self, configs: dict[str, QueueConfig]) -> int:
        """Define the configured queues, give back what the last process left running; returns how much that was.

        Blocks until that is durable; nothing else may be asked before.
        """

        def work(connection: sqlite3.Connection, now: int) -> tuple[list[Queue], int]:
            for name, config in configs.items():
                catalog.define(connection, name, config)
            queues = catalog.load(connection)
            return queues, recover(connection, {queue.id: queue for queue in queues}, now)

        queues, recovered = self._apply(work).result()
        self.queues = {queue.name: queue for queue in queues}
        return recovered

    # Intake

    async def enqueue(self, queue: Queue, job: NewJob) -> str:
        """Take a job in; returns its receipt when it is durable."""
        if not is_plain(job):
            return await self._apply(lambda connection, now: enqueue(connection, queue, job, now), lambda _: (queue,))

        def command(_: sqlite3.Connection) -> str:
            self.starts.gather(plain(queue, job, self._clock()))
            self.starts.touch((queue,))
            return job.id

        return await self._store.run(command)

    async def publish(self, topic: str, place: Callable[[Queue], NewJob]) -> int:
        """Give every subscriber of a topic its own job; returns how many got one."""

        def work(connection: sqlite3.Connection, now: int) -> list[Queue]:
            queues = catalog.subscriptions(connection, topic) or [catalog.unclaimed(connection, topic)]
            for queue in queues:
                enqueue(connection, queue, place(queue), now)
            return queues

        queues = await self._apply(work, lambda queues: queues)
        self._keep(queues)
        return sum(queue.topic is not None for queue in queues)

    # The ends of attempts

    async def settle(self, delivery: Delivery, verdict: Verdict) -> State | None:
        """Write down how an attempt has ended, and start what that made room for."""

        def work(connection: sqlite3.Connection, now: int) -> State | None:
            return settle(connection, delivery, verdict, now, random.random())

        own = (self.queues.get(delivery.queue.name, delivery.queue),)
        # The next suspect may stand in any queue.
        return await self._apply(work, lambda _: list(self.queues.values()) if delivery.suspect else own)

    async def sweep(self) -> None:
        """Start whatever is due, in every queue; forget old keys."""
        await self._apply(forget_keys, lambda _: list(self.queues.values()))

    async def held(self) -> set[Target]:
        """Return the functions that jobs wait for."""
        return await self._apply(lambda connection, _: held_targets(connection))

    async def release(self, function_id: str, *, limit: int) -> int:
        """Let jobs that waited for a function go on; returns how many."""
        return await self._apply(
            lambda connection, _: release(connection, function_id, limit=limit), lambda _: list(self.queues.values())
        )

    # Queues

    async def define(self, name: str, config: QueueConfig) -> bool:
        """Make or change a named queue; returns whether anything has changed."""
        queue, changed = await self._apply(
            lambda connection, _: catalog.define(connection, name, config), lambda found: (found[0],)
        )
        self._keep([queue])
        return changed

    async def bind(self, queue: Queue, trigger_id: str) -> None:
        """Make the queue of a subscriber deliver."""
        self.starts.bound.setdefault(queue.name, set()).add(trigger_id)
        stored = await self._apply(lambda connection, _: catalog.subscribe(connection, queue), lambda found: (found,))
        self._keep([stored])

    def unbind(self, trigger_id: str) -> None:
        """Take a subscription's trigger away; its queue keeps what is published meanwhile."""
        for triggers in self.starts.bound.values():
            triggers.discard(trigger_id)

    async def unsubscribe(self, topic: str, function_id: str) -> int:
        """Remove a subscription with everything that waits for it; returns how many jobs that were."""
        removed = await self._apply(lambda connection, _: catalog.unsubscribe(connection, topic, function_id))
        gone = [queue for queue in self.find(topic) if queue.function_id == function_id]
        for queue in gone:
            self.queues.pop(queue.name, None)
        return removed

    async def pause(self, queues: list[Queue], *, paused: bool) -> bool:
        """Pause or resume queues; returns whether that changed anything."""

        def work(connection: sqlite3.Connection, _: int) -> bool:
            return any([catalog.pause(connection, queue, paused=paused) for queue in queues])

        return await self._apply(work, lambda _: queues)

    def find(self, name: str) -> list[Queue]:
        """Return the named queue, or all queues of the topic."""
        if name in self.queues:
            return [self.queues[name]]
        own = catalog.topic_name(name)
        return [queue for queue in self.queues.values() if queue.topic == name or queue.name == own]

    def _keep(self, queues: Iterable[Queue]) -> None:
        self.queues.update((queue.name, queue) for queue in queues)

    # Questions and manual moves

    async def counts(self, queues: list[Queue]) -> list[dict[str, Any]]:
        """Return the figures of each queue."""
        return await self._apply(lambda connection, _: [admin.counts(connection, queue) for queue in queues])

    async def peek(self, queue: Queue, offset: int, limit: int) -> list[dict[str, Any]]:
        """Return live jobs, the oldest first."""
        return await self._apply(lambda connection, _: admin.peek(connection, queue, offset, limit))

    async def letters(self, queues: list[Queue], offset: int, limit: int) -> list[dict[str, Any]]:
        """Return dead letters, the newest first."""
        return await self._apply(lambda connection, _: dead.letters(connection, queues, offset, limit))

    async def redrive(self, queues: list[Queue], job: str | None, data: bytes | None = None) -> int:
        """Deliver one dead letter again, or all; returns how many."""

        def work(connection: sqlite3.Connection, now: int) -> int:
            if job is None:
                return sum(dead.redrive_all(connection, queue, now) for queue in queues)
            return sum(dead.redrive(connection, queue, job, now, data) for queue in queues)

        return await self._apply(work, lambda _: queues)

    async def discard(self, queues: list[Queue], job: str) -> int:
        """Forget a dead letter; returns 0 when there is none."""
        return await self._apply(
            lambda connection, now: sum(dead.discard(connection, queue, job, now) for queue in queues), lambda _: queues
        )

    async def purge(self, queues: list[Queue]) -> int:
        """Remove every job that waits; returns how many."""
        return await self._apply(
            lambda connection, _: sum(admin.purge(connection, queue) for queue in queues), lambda _: queues
        )

    async def cancel(self, job: str) -> str | None:
        """Remove a job that waits. Returns the state it was in, None when there is no such job."""

        def work(connection: sqlite3.Connection, now: int) -> tuple[str | None, list[Queue]]:
            found = admin.find_job(connection, job)
            if found is None:
                return None, []
            queues = [queue for queue in self.queues.values() if queue.id == found[0]]
            admin.cancel(connection, queues[0], job, now)
            return found[1].name.lower(), queues

        state, _ = await self._apply(work, lambda found: found[1])
        return state


def mint_id() -> str:
    """Return the id of a job that no receipt names."""
    return str(uuid4())
