"""The queue's transactions, one method each: new jobs, ends of attempts, administration, over one `Store`.

Each method names the queues in which its transaction makes room or work; the scheduler starts what it can at the end
of the same transaction. That happens on the storage thread, so an enqueue whose caller gives up cannot lose an attempt
that it has started. The SQL is in the modules beside this one; a method without a description does what the function
of its name says.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from iii import InvocationError
from stdlib_workers.attempts import Outcome, Verdict
from stdlib_workers.queue import admin, catalog, lanes, outcomes
from stdlib_workers.queue.delivery import Target, held_targets, recover, release, settle
from stdlib_workers.queue.model import Delivery, NewJob, Queue, QueueConfig, State
from stdlib_workers.queue.new_jobs import enqueue, forget_keys, plain_row
from stdlib_workers.queue.outcomes import Ended
from stdlib_workers.queue.policy import verdicts_of_batch
from stdlib_workers.queue.scheduler import Scheduler
from stdlib_workers.storage import Pending, Store, wake

T = TypeVar("T")
Work = Callable[[sqlite3.Connection, int], T]


class Broker:
    """All queues of one store. `run` names this run of the engine, `clock` gives milliseconds.

    `noise` gives numbers from 0 to 1, which move the delays of retries apart.
    """

    def __init__(
        self, store: Store, run: str, clock: Callable[[], int], noise: Callable[[], float] = random.random
    ) -> None:
        self._store = store
        self._clock = clock
        self._noise = noise
        self.queues: dict[str, Queue] = {}
        self._declared: frozenset[str] = frozenset()
        self._defining: dict[str, asyncio.Event] = {}  # by name, until the queue is there
        # Of each job the callers that wait for its end. Written on the storage thread alone, in the order of commits.
        self._waiting: dict[str, list[Pending[Ended]]] = {}
        self.scheduler = Scheduler(run, clock)
        store.attach(self.scheduler)

    def _transact(
        self, work: Work[T], changed: Iterable[Queue] = (), then: Callable[[T], None] | None = None
    ) -> Pending[T]:
        """Run `work(connection, now)` in a transaction, at the end of which jobs of the `changed` queues may start.

        `then(result)` runs on the storage thread after the commit.
        """

        def command(connection: sqlite3.Connection) -> T:
            self.scheduler.write_added(connection)
            result = work(connection, self._clock())
            self.scheduler.reconsider(changed)
            return result

        return self._store.run(command, then=then)

    def start(self, configs: dict[str, QueueConfig]) -> int:
        """Define the configured queues, give back what the last process left running; returns how much that was.

        Blocks until that is durable. Call it before any other method.
        """

        def work(connection: sqlite3.Connection, now: int) -> tuple[list[Queue], int]:
            for name, config in configs.items():
                catalog.define(connection, name, replace(config, is_declared=True))
            queues = catalog.load(connection)
            return queues, recover(connection, {queue.id: queue for queue in queues}, now)

        self._declared = frozenset(configs)
        queues, recovered = self._transact(work).result()
        self.queues = {queue.name: queue for queue in queues}
        return recovered

    # New jobs

    async def enqueue(self, queue: Queue, job: NewJob) -> str:
        """Take a job in; returns its receipt when it is durable."""
        if job.key is not None or job.group is not None or not queue.config.is_plain or queue.config.has_keys:
            return await self._transact(lambda connection, now: enqueue(connection, queue, job, now), (queue,))

        def command(_: sqlite3.Connection) -> str:
            self.scheduler.add(plain_row(queue, job, self._clock()))
            self.scheduler.reconsider((queue,))
            return job.id

        return await self._store.run(command)

    async def enqueue_and_wait(self, queue: Queue, job: NewJob) -> Any:
        """Take a job in, wait for its end and return the result. InvocationError once it is dead, or removed."""

        def work(connection: sqlite3.Connection, now: int) -> tuple[str, Ended | None]:
            outcomes.check_waiters(connection, queue, job)
            receipt = enqueue(connection, queue, job, now)
            return receipt, outcomes.find_or_await(connection, receipt)

        end: Pending[Ended] = Pending()

        def wait(found: tuple[str, Ended | None]) -> None:
            receipt, ended = found
            if ended is None:
                self._waiting.setdefault(receipt, []).append(end)

        _, ended = await self._transact(work, (queue,), wait)
        return (await end if ended is None else ended).value()

    def _tell_waiting(self, ends: Mapping[str, Ended]) -> None:
        """Answer the callers that wait for jobs that have ended."""
        for job, ended in ends.items():
            told = self._waiting.pop(job, [])
            for pending in told:
                pending.settle(ended)
            wake(told)

    def _removed(self, connection: sqlite3.Connection) -> dict[str, Ended]:
        """Return the ends of jobs that are waited for and were removed."""
        gone = outcomes.gone(connection, list(self._waiting))
        return {job: Ended(None, {"code": "job_removed", "message": f"job {job} was removed"}) for job in gone}

    async def _remove(self, work: Work[T], changed: Iterable[Queue] = ()) -> T:
        """As `_transact`, for what may remove jobs that callers wait for."""

        def command(connection: sqlite3.Connection, now: int) -> tuple[T, dict[str, Ended]]:
            result = work(connection, now)
            return result, self._removed(connection)

        return (await self._transact(command, changed, lambda done: self._tell_waiting(done[1])))[0]

    async def publish(self, topic: str, job_for: Callable[[Queue], NewJob]) -> int:
        """Give every subscriber of a topic its own job; returns how many got one."""

        def work(connection: sqlite3.Connection, now: int) -> list[Queue]:
            queues = catalog.subscriptions(connection, topic) or [catalog.queue_without_subscribers(connection, topic)]
            for queue in queues:
                enqueue(connection, queue, job_for(queue), now)
            self.scheduler.reconsider(queues)
            return queues

        queues = await self._transact(work)
        self.queues.update((queue.name, queue) for queue in queues)
        return sum(queue.topic is not None for queue in queues)

    # The ends of attempts

    async def settle(self, delivery: Delivery, verdict: Verdict) -> State | None:
        """Write down how an attempt has ended, and start what that made room for."""
        own_queue = self.queues.get(delivery.queue.name, delivery.queue)
        verdicts = verdicts_of_batch(delivery, verdict)
        # One possible poison message runs at a time: the next may be in any queue.
        changed = self.queues.values() if delivery.possible_poison else (own_queue,)

        def work(connection: sqlite3.Connection, now: int) -> tuple[State | None, dict[str, Ended]]:
            ends: dict[str, Ended] = {}
            state = None
            for job, job_verdict in verdicts:
                state = settle(connection, job, job_verdict, now, self._noise())
                is_over = state is State.DEAD or (state is None and job_verdict.outcome is Outcome.DONE)
                if is_over and (job.waits or job.id in self._waiting) and self._is_over(connection, job.id, state):
                    ends[job.id] = outcomes.ended_by(job_verdict)
                    outcomes.keep(connection, own_queue, job.id, ends[job.id], now)
            if own_queue.config.has_keys:
                lanes.ended(connection, own_queue, delivery.keys, now)
            return state, ends

        return (await self._transact(work, changed, lambda done: self._tell_waiting(done[1])))[0]

    @staticmethod
    def _is_over(connection: sqlite3.Connection, job: str, state: State | None) -> bool:
        """Whether a job has ended, and not only an attempt that is not its current one."""
        return state is State.DEAD or bool(outcomes.gone(connection, [job]))

    async def sweep(self) -> None:
        """Start whatever is due, in every queue; forget old keys, times and results."""

        def work(connection: sqlite3.Connection, now: int) -> None:
            forget_keys(connection, now)
            lanes.forget(connection, now)
            outcomes.forget(connection, now)

        await self._transact(work, self.queues.values())

    def review(self, queue: Queue) -> None:
        """Look again at the jobs of a queue that wait for its keys, so many in one transaction. Returns at once."""

        def look(after: tuple[int, int, int]) -> None:
            def then(last: tuple[int, int, int] | None) -> None:
                if last is not None:
                    look(last)

            self._transact(lambda connection, now: lanes.review(connection, queue, after, now), (queue,), then)

        if queue.config.has_keys:
            look(lanes.BEGIN)

    async def held(self) -> set[Target]:
        return await self._transact(lambda connection, _: held_targets(connection))

    async def release(self, function_id: str, *, limit: int) -> int:
        return await self._transact(
            lambda connection, _: release(connection, function_id, limit=limit), self.queues.values()
        )

    # Queues

    async def define(self, name: str, config: QueueConfig) -> bool:
        """Make or change a named queue; returns whether anything has changed."""
        config = replace(config, is_declared=name in self._declared)
        defined = self._defining[name] = asyncio.Event()

        def work(connection: sqlite3.Connection, _: int) -> tuple[Queue, bool]:
            queue, has_changed = catalog.define(connection, name, config)
            self.scheduler.reconsider((queue,))
            return queue, has_changed

        try:
            queue, has_changed = await self._transact(work)
            self.queues[queue.name] = queue
        finally:
            defined.set()
            if self._defining.get(name) is defined:
                del self._defining[name]
        if has_changed:
            self.review(queue)
        return has_changed

    async def find_named(self, name: str) -> Queue | None:
        """Return the queue of this name; of one that is being defined, once it is."""
        if name not in self.queues and name in self._defining:
            await self._defining[name].wait()
        queue = self.queues.get(name)
        return None if queue is None or queue.topic is not None else queue

    def is_orphaned(self, queue: Queue) -> bool:
        """Whether iii.toml has declared a queue and does no more."""
        return queue.config.is_declared and queue.name not in self._declared

    async def delete(self, queue: Queue) -> int:
        """Remove a named queue with its jobs and dead letters; returns how many.

        InvocationError `queue_in_use` while iii.toml declares it, and while a job of it runs.
        """
        if queue.name in self._declared:
            raise InvocationError(
                "queue_in_use", f"iii.toml declares the queue {queue.name!r}; take it out there first"
            )

        def work(connection: sqlite3.Connection, _: int) -> int:
            running = admin.counts(connection, queue)["running"]
            if running:
                text = f"{running} jobs of the queue {queue.name!r} run; pause it, and try again when they have ended"
                raise InvocationError("queue_in_use", text)
            return catalog.delete(connection, queue)

        removed = await self._remove(work)
        self.queues.pop(queue.name, None)
        return removed

    def define_all(self, configs: dict[str, QueueConfig]) -> None:
        """As `define` for several queues. Blocks until that is durable."""

        def work(connection: sqlite3.Connection, _: int) -> list[Queue]:
            queues = [
                catalog.define(connection, name, replace(config, is_declared=name in self._declared))[0]
                for name, config in configs.items()
            ]
            self.scheduler.reconsider(queues)
            return queues

        for queue in self._transact(work).result():
            self.queues[queue.name] = queue
            self.review(queue)

    async def bind(self, queue: Queue, trigger_id: str) -> None:
        """Make the queue of a subscriber deliver."""

        def work(connection: sqlite3.Connection, _: int) -> Queue:
            stored = catalog.subscribe(connection, queue)
            self.scheduler.reconsider((stored,))
            return stored

        self.scheduler.bind(queue.name, trigger_id)
        self.queues[queue.name] = await self._transact(work)

    async def unsubscribe(self, topic: str, function_id: str) -> int:
        removed = await self._remove(lambda connection, _: catalog.unsubscribe(connection, topic, function_id))
        for queue in self.find(topic):
            if queue.function_id == function_id:
                self.queues.pop(queue.name, None)
        return removed

    async def pause(self, queues: list[Queue], *, paused: bool) -> bool:
        """Pause or resume queues; returns whether that changed anything."""
        return await self._transact(
            lambda connection, _: any([catalog.pause(connection, queue, paused=paused) for queue in queues]), queues
        )

    def find(self, name: str) -> list[Queue]:
        """Return the named queue, or all queues of the topic."""
        if name in self.queues:
            return [self.queues[name]]
        own = catalog.topic_name(name)
        return [queue for queue in self.queues.values() if queue.topic == name or queue.name == own]

    # Questions and manual moves

    async def counts(self, queues: list[Queue]) -> list[dict[str, Any]]:
        return await self._transact(lambda connection, _: [admin.counts(connection, queue) for queue in queues])

    async def peek(self, queue: Queue, offset: int, limit: int) -> list[dict[str, Any]]:
        return await self._transact(lambda connection, _: admin.peek(connection, queue, offset, limit))

    async def letters(self, queues: list[Queue], offset: int, limit: int) -> list[dict[str, Any]]:
        return await self._transact(lambda connection, _: admin.letters(connection, queues, offset, limit))

    async def redrive(self, queues: list[Queue], job: str | None, data: bytes | None = None) -> int:
        """Deliver one dead letter again, or all; returns how many."""

        def work(connection: sqlite3.Connection, now: int) -> int:
            if job is None:
                return sum(admin.redrive_all(connection, queue, now) for queue in queues)
            return sum(admin.redrive(connection, queue, job, now, data) for queue in queues)

        return await self._transact(work, queues)

    async def discard(self, queues: list[Queue], job: str) -> int:
        return await self._transact(
            lambda connection, now: sum(admin.discard(connection, queue, job, now) for queue in queues), queues
        )

    async def purge(self, queues: list[Queue]) -> int:
        return await self._remove(lambda connection, _: sum(admin.purge(connection, queue) for queue in queues), queues)

    async def cancel(self, job: str) -> str | None:
        """Remove a job that waits. Returns the state it was in, None when there is no such job."""

        def work(connection: sqlite3.Connection, now: int) -> str | None:
            row = admin.find_job(connection, job)
            if row is None:
                return None
            queue_id, state = row
            queues = [queue for queue in self.queues.values() if queue.id == queue_id]
            admin.cancel(connection, queues[0], job, now)
            self.scheduler.reconsider(queues)
            return state.name.lower()

        return await self._remove(work)
