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


# Calls the function of a trigger id with a payload.
Fire = Callable[[str, dict[str, Any]], Awaitable[Any]]
Log = Callable[[str], object]


@dataclass
class ScheduledJob:
    """A job with its triggers (several while its worker reloads), its task and its runs."""

    job: Job
    triggers: list[str]
    task: asyncio.Task[None] | None = None
    runs: set[asyncio.Task[None]] = field(default_factory=set)
    last: datetime | None = None
    skipped: int = 0
    queued: tuple[datetime, int] | None = None  # the tick that waits for the run, and how many it has missed


class Scheduler:
    """All jobs of one engine, by key."""

    def __init__(
        self, store: SqliteJobStore, fire: Fire, *, time: Time | None = None, log: Log = lambda _: None
    ) -> None:
        self._store = store
        self._fire = fire
        self._time = time or Time()
        self._clock = self._time.now
        self._log = log
        self.jobs: dict[str, ScheduledJob] = {}

    def add(self, trigger_id: str, job: Job) -> None:
        """Schedule a job. A job that is scheduled gets one trigger more; its ticks are fired for the latest."""
        scheduled = self.jobs.get(job.key)
        if scheduled is not None:
            scheduled.triggers.append(trigger_id)
            scheduled.job = job
            return
        scheduled = self.jobs[job.key] = ScheduledJob(job, [trigger_id])
        if job.next_tick(self._clock()) is None:
            self._log(f"{job.key}: {job.schedule.text!r} never comes again")
        scheduled.task = asyncio.get_running_loop().create_task(self._watch(scheduled))

    def remove(self, trigger_id: str) -> bool:
        """Let go of a trigger; the job ends with its last one. Runs go on. False for an unknown id."""
        for key, scheduled in self.jobs.items():
            if trigger_id in scheduled.triggers:
                scheduled.triggers.remove(trigger_id)
                if not scheduled.triggers:
                    del self.jobs[key]
                    if scheduled.task is not None:
                        scheduled.task.cancel()
                return True
        return False

    async def run_now(self, key: str) -> dict[str, Any]:
        """Fire a job, by key or trigger id, beside its schedule; returns the payload. KeyError for an unknown job."""
        for scheduled in self.jobs.values():
            if key == scheduled.job.key or key in scheduled.triggers:
                now = self._clock()
                payload = payload_from(scheduled.triggers[-1], scheduled.job, now, now, 0) | {"trigger": "manual"}
                await self._fire(scheduled.triggers[-1], payload)
                return payload
        raise KeyError(key)

    async def _watch(self, scheduled: ScheduledJob) -> None:
        record = await self._store.open(scheduled.job.key, self._clock())
        scheduled.last = record.last
        if record.running is not None:
            self._log(f"{scheduled.job.key}: the run of {iso_utc(record.running)} did not end; it is fired again")
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
        key = scheduled.job.key
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
        trigger = scheduled.triggers[-1] if scheduled.triggers else ""
        payload = payload_from(trigger, scheduled.job, tick, self._clock(), missed)
        try:
            if trigger:
                await self._fire(trigger, payload)
        except InvocationError:
            pass  # the engine tells of every failed call that is made for an event
        await self._store.mark_ended(scheduled.job.key, tick)
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
                    "job": scheduled.job.key,
                    "job_id": scheduled.triggers[-1],
                    "expression": scheduled.job.schedule.text,
                    "timezone": str(scheduled.job.zone),
                    "next": None if due is None else iso_utc(due),
                    "running": bool(scheduled.runs),
                    "skipped": scheduled.skipped,
                }
            )
        return rows
