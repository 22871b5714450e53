"""Makes the attempts: calls the functions, always with a deadline, and writes down how each call has ended.

Runs on its own event loop; `dispatch` may be called from any thread. Owns the timer for what is due later. The
scheduler decides in transactions what may start, so nothing here counts slots.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from math import inf
from threading import Event
from typing import Any
from urllib.parse import quote

import orjson

from iii import InvocationError, TriggerConfig, TriggerRequestInput, Worker
from stdlib_workers.attempts import DONE, Outcome, Verdict, is_end_of_engine, timed_out, verdict_from
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.delivery import BATCH, StartedJobs, Target
from stdlib_workers.queue.model import Delivery
from stdlib_workers.queue.outcomes import WAITERS
from stdlib_workers.queue.policy import blame, expected_delay_ms

# How long to wait before writing an end down again that the storage could not take.
STORAGE_RETRY_INTERVAL = 0.2
# Of the time to stop, the part that the process itself needs.
EXIT_TIMEOUT = 0.2
# A process that has lost the engine lives for half a second at most. One that still lives after this had not lost it:
# the error was the answer of a function.
ENGINE_END_TIMEOUT = 5.0
# The engine ends all calls of a crashed worker at once; the queue worker needs this long to read those answers.
CRASH_DEBOUNCE = 0.02
# The engine announces each registration. An announcement can be missed: one job of each function that is missing is
# tried so often all the same.
PROBE_INTERVAL = 5.0
# A handler may go on for as long again as its timeout, and at least for so long, before its process is replaced.
MIN_OVERRUN = 60.0
# The key of the metadata under which a handler finds its job.
JOB = "iii.job"
# Say how the sender's own call is to be shown in a trace: not true of the job (public contract).
OF_THE_SENDER = frozenset({"iii.tag.kind", "iii.tag.display_name", "iii.tag.hidden"})


class Dispatcher:
    """The attempts under way, and the time at which the next job becomes due.

    The loop's timers do not count the time that the machine sleeps: the `clock` is read every `longest_sleep` seconds.
    """

    def __init__(
        self,
        worker: Worker,
        broker: Broker,
        clock: Callable[[], int],
        *,
        min_overrun: float = MIN_OVERRUN,
        longest_sleep: float = inf,
    ) -> None:
        self._longest_sleep = longest_sleep
        self._worker = worker
        self._min_overrun = min_overrun
        self._broker = broker
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._missing_functions = MissingFunctions(broker)
        self._crashed_jobs: dict[str, int] = {}  # by worker, how many jobs its crash has ended
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: set[asyncio.Task[None]] = set()
        self._is_idle = Event()
        self._is_idle.set()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._due: int | None = None  # when the timer fires
        broker.scheduler.deliver_to(self.dispatch)

    def dispatch(self, started: StartedJobs) -> None:
        """Make the attempts that a transaction has started, and sweep the queues when the next job becomes due."""
        if started.deliveries or self._is_earlier(started.due):
            self._loop.call_soon_threadsafe(self._start, started)

    def on_functions_available(self, payload: Any) -> None:
        # Announced by the engine; the jobs that wait for one of these functions start.
        function_ids = payload.get("added") or []
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._missing_functions.on_registered(function_ids)))

    def finish(self, timeout: float) -> None:
        """Start nothing more and wait, up to `timeout` (0: no limit), until what is under way has been written down."""
        self._broker.scheduler.is_stopping = True
        self._is_idle.wait(max(0.0, timeout - EXIT_TIMEOUT) if timeout else None)

    async def run(self) -> None:
        """Start what has waited since the last run, then serve for ever.

        Raises what a task of this dispatcher has raised: a job whose attempt nobody watches any more would run for
        ever, so this process ends and another one takes the jobs over.
        """
        await self._broker.sweep()
        await asyncio.gather(self._missing_functions.probe(), self._failure)

    def _is_earlier(self, due: int | None) -> bool:
        return due is not None and (self._due is None or due < self._due)

    def _start(self, started: StartedJobs) -> None:
        for delivery in started.deliveries:
            task = self._spawn(self._deliver(delivery))
            self._is_idle.clear()
            self._attempts.add(task)
            task.add_done_callback(self._on_attempt_ended)
        if started.due is not None and self._is_earlier(started.due):
            if self._timer is not None:
                self._timer.cancel()
            self._due = started.due
            self._sleep()

    def _sleep(self) -> None:
        """Sleep until the next job is due."""
        assert self._due is not None
        seconds = max(0, self._due - self._clock()) / 1000
        wakes_early = seconds > self._longest_sleep
        on_time = self._sleep if wakes_early else self._on_due
        self._timer = self._loop.call_later(min(seconds, self._longest_sleep), on_time)

    def _on_due(self) -> None:
        self._timer = self._due = None
        self._spawn(self._sweep())

    async def _sweep(self) -> None:
        """Start what is due; while the storage cannot, try again: no other event would start it."""
        while True:
            try:
                await self._broker.sweep()
                return
            except InvocationError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(STORAGE_RETRY_INTERVAL)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_ended)
        return task

    def _on_task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    def _on_attempt_ended(self, task: asyncio.Task[None]) -> None:
        self._attempts.discard(task)
        if not self._attempts:
            self._is_idle.set()

    async def _deliver(self, delivery: Delivery) -> None:
        verdict = await self._attempt(delivery)
        target = (delivery.namespace, delivery.function_id)
        if verdict.outcome is Outcome.MISSING:
            self._missing_functions.add(target)
        await self._settle(delivery, verdict)
        is_registered = verdict.outcome not in (Outcome.MISSING, Outcome.RETURNED)
        if is_registered and target in self._missing_functions:
            await self._missing_functions.on_registered([delivery.function_id])

    async def _attempt(self, delivery: Delivery) -> Verdict:
        config = delivery.queue.config
        event = [orjson.loads(job.data) for job in delivery.batch] if delivery.batch else orjson.loads(delivery.data)
        request: TriggerRequestInput = {
            "function_id": delivery.function_id,
            "payload": event,
            "timeout_ms": config.timeout_ms,
            "metadata": sidecar(delivery),
            "namespace": delivery.namespace,
            "trace": {"traceparent": delivery.traceparent, "baggage": baggage_of(delivery)},
        }
        timeout, overrun = config.timeout_ms / 1000, None
        began_at = self._loop.time()
        try:
            condition = config.condition_function_id
            if condition and await self._worker.trigger_async({**request, "function_id": condition}) is False:
                return DONE
            request["payload"] = arguments_for(delivery, event)
            began_at = self._loop.time()
            overrun = self._loop.call_later(timeout + max(timeout, self._min_overrun), self._on_overrun, delivery)
            # Nothing can stop a thread: the job keeps its slot, and its group, until its handler has really ended.
            result = await self._worker.trigger_async({**request, "awaits_end": True})
        except InvocationError as error:
            if is_end_of_engine(error):
                # Nothing is written down: the next start finds the job running, and gives it back unspent.
                await asyncio.sleep(ENGINE_END_TIMEOUT)
            verdict = verdict_from(error, delivery.function_id)
            if self._loop.time() - began_at >= timeout:
                verdict = timed_out(verdict, delivery.function_id, config.timeout_ms)
            if verdict.killed:
                is_shared = await self._is_shared_crash(str(error.details.get("worker")))
                return blame(delivery, verdict, is_shared=is_shared)
            return verdict
        finally:
            if overrun is not None:
                overrun.cancel()
        return Verdict(Outcome.DONE, result=result)

    def _on_overrun(self, delivery: Delivery) -> None:
        self._spawn(self._replace_worker(delivery))

    async def _replace_worker(self, delivery: Delivery) -> None:
        """Replace the process of a handler that goes on long after its timeout, and holds up what waits behind it."""
        what = f"{name_of(delivery)} still runs, long after its timeout of {delivery.queue.config.timeout_ms} ms"
        target = {"function_id": delivery.function_id, "namespace": delivery.namespace or "default"}
        try:
            info = await self._worker.trigger_async("engine::functions::info", target)
            worker = info["worker_name"]
            say(f"{what}; its worker {worker} is restarted")
            await self._worker.trigger_async("engine::workers::restart", {"name": worker})
        except InvocationError as error:
            say(f"{what}, and its worker cannot be restarted ({error}); what waits behind it waits until it ends")

    async def _is_shared_crash(self, worker: str) -> bool:
        """Whether a crash has ended other jobs too: then any of them may be the poison message.

        Call it for each job, as soon as its end is known.
        """
        crashed_jobs = self._crashed_jobs
        crashed_jobs[worker] = crashed_jobs.get(worker, 0) + 1
        await asyncio.sleep(CRASH_DEBOUNCE)
        is_shared = crashed_jobs[worker] > 1

        def forget() -> None:
            crashed_jobs[worker] -= 1
            if not crashed_jobs[worker]:
                del crashed_jobs[worker]

        # The jobs of one crash wake up within a turn or two of the loop: the count may shrink when all have read it.
        self._loop.call_later(CRASH_DEBOUNCE, forget)
        return is_shared

    async def _settle(self, delivery: Delivery, verdict: Verdict) -> None:
        """Write the end down. Until the storage has taken it the job keeps its slot: no other attempt may start."""
        while True:
            try:
                await self._broker.settle(delivery, verdict)
                return
            except InvocationError as error:
                if not error.retryable:
                    say(f"the end of {name_of(delivery)} could not be written down: {error}")
                    return
            await asyncio.sleep(STORAGE_RETRY_INTERVAL)


class MissingFunctions:
    """Functions that no worker had registered when a job last called them: their jobs wait."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        # Holds back the missing functions, without those that a probe is trying.
        self._scheduler = broker.scheduler
        self._missing: set[Target] = set()
        self._has_missing = asyncio.Event()

    def __contains__(self, target: Target) -> bool:
        return target in self._missing

    def add(self, target: Target) -> None:
        """From now on let jobs of this function wait without calling it."""
        self._missing.add(target)
        self._has_missing.set()
        self._scheduler.held_back |= {target}

    async def on_registered(self, function_ids: list[str]) -> None:
        """Let all jobs of these functions start."""
        registered = {function_id for _, function_id in self._missing} & set(function_ids)
        self._missing = {target for target in self._missing if target[1] not in registered}
        self._scheduler.held_back = frozenset(self._missing)
        for function_id in registered:
            while await self._broker.release(function_id, limit=BATCH) == BATCH:
                pass

    async def probe(self) -> None:
        """Try one job of each missing function now and then, for ever; rest while none is missing."""
        for target in await self._broker.held():
            self._missing.add(target)
            self._has_missing.set()
        while True:
            if not self._missing:
                self._has_missing.clear()
                await self._has_missing.wait()
            for target in list(self._missing):
                # The released job must start to find out whether its function is still missing.
                self._scheduler.held_back -= {target}
                await self._broker.release(target[1], limit=1)
            await asyncio.sleep(PROBE_INTERVAL)


def name_of(delivery: Delivery) -> str:
    return f"job {delivery.id} of {delivery.function_id} (queue {delivery.queue.topic or delivery.queue.name})"


def arguments_for(delivery: Delivery, event: Any) -> Any:
    """Return what the job's function gets. An event that lacks an argument fails the attempt, and is told here.

    No call fails that the engine could tell of.
    """
    if (arguments := delivery.queue.config.arguments) is None:
        return event
    binding = TriggerConfig("", delivery.function_id, {"payload": "arguments", "arguments": arguments})
    try:
        return binding.payload_from(event)
    except InvocationError as error:
        say(f"{name_of(delivery)} fails: {error.message}")
        raise


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def sidecar(delivery: Delivery) -> Any:
    """Return the metadata of a call: the sender's, with the job under `iii.job` unless the sender's is no object.

    A batch has many senders: the metadata of each is beside its job.
    """
    if delivery.batch:
        jobs = [{**job_of(job), **({"metadata": _metadata(job)} if job.metadata else {})} for job in delivery.batch]
        return {JOB: {"id": delivery.id, "queue": delivery.queue.name, "batch": jobs}}
    metadata = _metadata(delivery)
    if metadata is not None and not isinstance(metadata, dict):
        return metadata
    return {**(metadata or {}), JOB: job_of(delivery)}


def _metadata(delivery: Delivery) -> Any:
    return None if delivery.metadata is None else orjson.loads(delivery.metadata)


def job_of(delivery: Delivery) -> dict[str, Any]:
    """Return what a handler is told about its job."""
    job = {
        "id": delivery.id,
        "queue": delivery.queue.topic or delivery.queue.name,
        "attempt": delivery.attempt,
        "failures": delivery.spent,
        "max_attempts": delivery.queue.config.attempts,
        "retry_in_ms": expected_delay_ms(delivery),
        "enqueued_at": delivery.created,
    }
    return {key: value for key, value in job.items() if value is not None}


def carried(baggage: str | None) -> str | None:
    """Return the part of a sender's baggage that goes along with the job, None for nothing."""
    members = baggage.split(",") if baggage else []
    kept = [member for member in members if member.partition("=")[0].strip() not in OF_THE_SENDER]
    return ",".join(kept) or None


def baggage_of(delivery: Delivery) -> str | None:
    """Return the baggage of a job's call. It names the job if others wait for its group or its key.

    So the queue knows a job that waits for one behind itself. A job nobody waits for ends the list of those that wait.
    """
    baggage = carried(delivery.baggage)
    if not delivery.waits and baggage is not None and WAITERS in baggage:
        kept = [member for member in baggage.split(",") if not member.startswith(f"{WAITERS}=")]
        baggage = ",".join(kept) or None
    if delivery.group is None and delivery.keys.concurrency is None:
        return baggage
    own = f"{WAITERS}={quote(delivery.id)}"
    return own if baggage is None else f"{baggage},{own}"
