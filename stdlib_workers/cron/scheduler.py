"""Fires the jobs: one task a job that sleeps, decides, claims the tick and calls the function. Runs on one event loop.

Time comes from `Time`, so a year passes in a test in a moment; its sleeps are short enough to notice that the wall
clock was set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from iii import InvocationError
from stdlib_workers.cron.job_store import SqliteJobStore
from stdlib_workers.cron.jobs import Decision, Job, decide, iso_utc, payload_from


class Time:
    """The wall clock, and sleeping; tests have another."""

    # Sleeps run on the monotonic clock, jobs on the wall clock, which is read at least so often. In seconds.
    longest_sleep = 30.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Sleep so long, on the monotonic clock."""
        await asyncio.sleep(seconds)


# A worker that reloads withdraws its old triggers in the same moment in which it binds the new ones.
HANDOVER_TIMEOUT = 2.0
STORAGE_RETRY_INTERVAL = 1.0
# Calls the function of a trigger id with a payload.
Fire = Callable[[str, dict[str, Any]], Awaitable[Any]]
Log = Callable[[str], object]


@dataclass
class ScheduledJob:
    """A trigger's job with its task and its runs. Its record is kept, and its ticks are called, by `key`."""

    trigger_id: str
    key: str
    job: Job
    task: asyncio.Task[None] | None = None
    runs: set[asyncio.Task[None]] = field(default_factory=set)
    last: datetime | None = None
    skipped: int = 0
    queued: tuple[datetime, int] | None = None  # the tick that waits for the run, and how many it has missed


class Scheduler:
    """All jobs of one engine, by trigger id.

    A trigger is a job of its own, whatever it has in common with others: the engine gives the same id to a binding
    through all reloads and instances of its worker. Ids are new after a restart. So the record of what has been fired
    is kept under the job's key; of several unnamed jobs with one key the second has the record `KEY #2`, by the order
    in which they were bound.
    """

    def __init__(
        self,
        store: SqliteJobStore,
        fire: Fire,
        *,
        time: Time | None = None,
        log: Log = lambda _: None,
        handover_timeout: float = HANDOVER_TIMEOUT,
    ) -> None:
        self._store = store
        self._fire = fire
        self._time = time or Time()
        self._clock = self._time.now
        self._log = log
        self._handover_timeout = handover_timeout
        self._has_left = asyncio.Condition()
        self._waiting: set[str] = set()  # triggers that wait for the name of another
        self.jobs: dict[str, ScheduledJob] = {}

    async def admit(self, trigger_id: str, job: Job) -> None:
        """Schedule a job once no other trigger has its name; ValueError if that one does not leave within moments.

        A worker that has changed the trigger binds it anew before the old one is withdrawn.
        """
        self._waiting.add(trigger_id)
        try:
            async with asyncio.timeout(self._handover_timeout), self._has_left:
                await self._has_left.wait_for(lambda: self._holder_of(trigger_id, job) is None)
        except TimeoutError:
            holder = self._holder_of(trigger_id, job)
            if holder is not None:
                text = (
                    f"the name {job.key!r} of the cron trigger {trigger_id} is taken by the trigger {holder.trigger_id}"
                )
                raise ValueError(f"{text} ({holder.job.schedule.text}); give one of them another name") from None
        finally:
            is_wanted = trigger_id in self._waiting  # withdrawn meanwhile, if not
            self._waiting.discard(trigger_id)
        if is_wanted:
            self.add(trigger_id, job)

    def _holder_of(self, trigger_id: str, job: Job) -> ScheduledJob | None:
        """Return the job of another trigger that has the name of this one."""
        if not job.is_named or trigger_id not in self._waiting:
            return None
        return next((other for other in self.jobs.values() if other.key == job.key), None)

    def add(self, trigger_id: str, job: Job) -> None:
        """Schedule the job of a trigger, in place of the one it had."""
        self.remove(trigger_id)
        taken = {scheduled.key for scheduled in self.jobs.values()}
        key, number = job.key, 1
        while key in taken:
            number += 1
            key = f"{job.key} #{number}"
        scheduled = self.jobs[trigger_id] = ScheduledJob(trigger_id, key, job)
        if job.next_tick(self._clock()) is None:
            self._log(f"{key}: {job.schedule.text!r} never comes again")
        scheduled.task = asyncio.get_running_loop().create_task(self._watch_for_ever(scheduled))

    async def leave(self, trigger_id: str) -> None:
        """End the job of a trigger; runs go on. Its name is free for another."""
        self._waiting.discard(trigger_id)
        self.remove(trigger_id)
        async with self._has_left:
            self._has_left.notify_all()

    def remove(self, trigger_id: str) -> bool:
        """End the job of a trigger; runs go on. False for an unknown id."""
        scheduled = self.jobs.pop(trigger_id, None)
        if scheduled is None:
            return False
        if scheduled.task is not None:
            scheduled.task.cancel()
        return True

    async def run_now(self, key: str) -> dict[str, Any]:
        """Fire a job, by key or trigger id, beside its schedule; returns the payload. KeyError for an unknown job."""
        for scheduled in self.jobs.values():
            if key in (scheduled.key, scheduled.trigger_id):
                now = self._clock()
                payload = payload_from(scheduled.trigger_id, scheduled.key, now, now, 0) | {"trigger": "manual"}
                await self._fire(scheduled.trigger_id, payload)
                return payload
        raise KeyError(key)

    async def _watch_for_ever(self, scheduled: ScheduledJob) -> None:
        """Fire the ticks of a job, also after the store could not take one: it may take the next."""
        while True:
            try:
                await self._watch(scheduled)
                return
            except InvocationError as error:
                self._log(f"{scheduled.key}: the record of its ticks cannot be used ({error}); trying again")
            await self._time.sleep(STORAGE_RETRY_INTERVAL)

    async def _watch(self, scheduled: ScheduledJob) -> None:
        record = await self._store.open(scheduled.key, self._clock())
        scheduled.last = record.last
        if record.damage:
            self._log(f"{scheduled.key}: {record.damage}; ticks that were missed before now are not made up")
        if record.running is not None:
            self._log(f"{scheduled.key}: the run of {iso_utc(record.running)} did not end; it is fired again")
            self._start(scheduled, record.running, record.missed)
        was_running = False
        while True:
            decision = decide(scheduled.job, scheduled.last, self._clock(), was_running=was_running)
            was_running = True
            if decision is not None:
                await self._apply(scheduled, decision)
            due = scheduled.job.next_tick(scheduled.last)
            if due is None:
                return
            await self._time.sleep(max(0.0, min(self._time.longest_sleep, (due - self._clock()).total_seconds())))

    async def _apply(self, scheduled: ScheduledJob, decision: Decision) -> None:
        seen, scheduled.last = scheduled.last, decision.last
        assert seen is not None
        key = scheduled.key
        fires = decision.fire is not None and not (scheduled.runs and scheduled.job.overlap == "skip")
        if not await self._store.claim_tick(key, seen, decision, fires=fires):
            return
        if fires and decision.fire is not None:
            self._start(scheduled, decision.fire, decision.missed)
        elif decision.fire is not None:
            scheduled.skipped += 1
            self._log(f"{key}: {iso_utc(decision.fire)} is skipped, the run before it has not ended")
        elif decision.missed:
            self._log(f"{key}: {decision.missed} ticks until {iso_utc(decision.last)} were missed and are not made up")

    def _start(self, scheduled: ScheduledJob, tick: datetime, missed: int) -> None:
        if scheduled.runs:
            # At most one tick waits: it counts those that come meanwhile as missed.
            earlier = scheduled.queued
            scheduled.queued = (tick, missed if earlier is None else missed + earlier[1] + 1)
            return
        run = asyncio.get_running_loop().create_task(self._run(scheduled, tick, missed))
        scheduled.runs.add(run)

    async def _run(self, scheduled: ScheduledJob, tick: datetime, missed: int) -> None:
        payload = payload_from(scheduled.trigger_id, scheduled.key, tick, self._clock(), missed)
        try:
            if scheduled.trigger_id in self.jobs:
                await self._fire(scheduled.trigger_id, payload)
        except InvocationError:
            pass  # the engine tells of every failed call that is made for an event
        try:
            await self._store.mark_ended(scheduled.key, tick)
        except InvocationError as error:
            self._log(f"{scheduled.key}: the end of the run of {iso_utc(tick)} could not be written down: {error}")
        scheduled.runs.clear()
        queued, scheduled.queued = scheduled.queued, None
        if queued is not None:
            self._start(scheduled, *queued)

    async def rows(self) -> list[dict[str, Any]]:
        """Return every job with its next tick, as `cron::list` shows it."""
        rows = []
        for scheduled in self.jobs.values():
            due = scheduled.job.next_tick(scheduled.last or self._clock())
            rows.append(
                {
                    "job": scheduled.key,
                    "job_id": scheduled.trigger_id,
                    "expression": scheduled.job.schedule.text,
                    "timezone": str(scheduled.job.zone),
                    "next": None if due is None else iso_utc(due),
                    "running": bool(scheduled.runs),
                    "skipped": scheduled.skipped,
                }
            )
        return rows
