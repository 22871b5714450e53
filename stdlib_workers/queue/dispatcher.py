"""Makes the attempts: calls the functions, always with a deadline, and writes down how each call has ended.

Runs on its own event loop; `take` may be called from any thread. Owns the timer for what is due later. What may start
is decided in transactions (`delivery`), so nothing here counts slots.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from threading import Event
from typing import Any

import orjson

from iii import InvocationError, TriggerRequestInput, Worker
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.deaths import Deaths
from stdlib_workers.queue.delivery import Moves, Target
from stdlib_workers.queue.holds import Holds
from stdlib_workers.queue.model import DONE, Delivery, Kind, Verdict
from stdlib_workers.queue.policy import blame, is_end_of_engine, verdict_from

# How long to wait before telling a storage that could not take the end of an attempt again.
STORAGE_PAUSE = 0.2
# Left of the time to stop for the process itself.
LAST_WORDS = 0.2
# A process whose wire has ended lives for half a second at most; after this, the word of the end was somebody's answer.
OUTLIVED_SECONDS = 5.0
# The sidecar's key under which a handler finds its job.
JOB = "iii.job"
# Say how the sender's own call is to be shown in a trace: not true of the job (public contract).
OF_THE_SENDER = frozenset({"iii.tag.kind", "iii.tag.display_name", "iii.tag.hidden"})


class Dispatcher:
    """Attempts under way, and the time of the next look."""

    def __init__(self, worker: Worker, broker: Broker, clock: Callable[[], int]) -> None:
        self._worker = worker
        self._broker = broker
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._holds = Holds(broker)
        self._deaths = Deaths()
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._idle = Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._due: int | None = None
        broker.starts.on_moves = self.take

    def take(self, moves: Moves) -> None:
        """Make the attempts of a transaction, and look again when it says so."""
        if moves.deliveries or (moves.due is not None and (self._due is None or moves.due < self._due)):
            self._loop.call_soon_threadsafe(self._start, moves)

    def functions_added(self, function_ids: list[str]) -> None:
        """Somebody registered functions: jobs that wait for them go on."""
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._holds.functions_added(function_ids)))

    def finish(self, seconds: float) -> None:
        """Start nothing more and wait, up to `seconds` (0: no limit), until what is under way has been written down."""
        self._broker.starts.is_stopping = True
        self._idle.wait(max(0.0, seconds - LAST_WORDS) if seconds else None)

    async def run(self) -> None:
        """Start what has waited since the last time, then serve for ever."""
        await self._broker.sweep()
        await self._holds.watch()

    def _start(self, moves: Moves) -> None:
        for delivery in moves.deliveries:
            task = self._spawn(self._deliver(delivery))
            self._idle.clear()
            self._under_way.add(task)
            task.add_done_callback(self._leave)
        if moves.due is not None:
            self._arm(moves.due)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _leave(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not self._under_way:
            self._idle.set()

    def _arm(self, due: int) -> None:
        if self._due is not None and self._due <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0, due - self._clock()) / 1000, self._look)

    def _look(self) -> None:
        self._timer = self._due = None
        self._spawn(self._broker.sweep())

    async def _deliver(self, delivery: Delivery) -> None:
        verdict = await self._attempt(delivery)
        target = (delivery.namespace, delivery.function_id)
        if verdict.kind is Kind.MISSING:
            self._holds.note_missing(target)
        await self._settle(delivery, verdict)
        if verdict.kind not in (Kind.MISSING, Kind.RETURNED):
            await self._release(target)

    async def _release(self, target: Target) -> None:
        if self._holds.is_waited_for(target):
            await self._holds.functions_added([target[1]])

    async def _attempt(self, delivery: Delivery) -> Verdict:
        payload = orjson.loads(delivery.data)
        config = delivery.queue.config
        request: TriggerRequestInput = {
            "function_id": delivery.function_id,
            "payload": payload,
            "timeout_ms": config.timeout_ms,
            "metadata": sidecar(delivery),
            "namespace": delivery.namespace,
            "trace": {"traceparent": delivery.traceparent, "baggage": carried(delivery.baggage)},
        }
        try:
            condition = config.condition_function_id
            if condition and await self._worker.trigger_async({**request, "function_id": condition}) is False:
                return DONE
            await self._worker.trigger_async(request)
        except InvocationError as error:
            if is_end_of_engine(error):
                # Nothing is written down: the next start finds the job running, and gives it back unspent.
                await asyncio.sleep(OUTLIVED_SECONDS)
            verdict = verdict_from(error, delivery.function_id)
            if verdict.killed:
                in_company = await self._deaths.in_company(str(error.details.get("worker")))
                return blame(delivery, verdict, in_company=in_company)
            return verdict
        return DONE

    async def _settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Write the end down; until the storage takes it the job keeps its slot, because nobody else may have it."""
        while True:
            try:
                await self._broker.settle(delivery, verdict)
                return
            except InvocationError as error:
                if not error.retryable:
                    sys.stderr.write(f"iii: the end of job {delivery.id} could not be written down: {error}\n")
                    return
            await asyncio.sleep(STORAGE_PAUSE)

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._under_way)} under way, {len(self._broker.queues)} queues>"


def sidecar(delivery: Delivery) -> Any:
    """Return the metadata of a call: the sender's, with the job under `iii.job` unless the sender's is no object."""
    given = None if delivery.metadata is None else orjson.loads(delivery.metadata)
    if given is not None and not isinstance(given, dict):
        return given
    job = {
        "id": delivery.id,
        "queue": delivery.queue.topic or delivery.queue.name,
        "attempt": delivery.attempt,
        "failures": delivery.spent,
        "max_attempts": delivery.queue.config.attempts,
        "enqueued_at": delivery.created,
    }
    return {**(given or {}), JOB: {key: value for key, value in job.items() if value is not None}}


def carried(baggage: str | None) -> str | None:
    """Return the part of a sender's baggage that goes along with the job, None for nothing."""
    members = baggage.split(",") if baggage else []
    kept = [member for member in members if member.partition("=")[0].strip() not in OF_THE_SENDER]
    return ",".join(kept) or None
