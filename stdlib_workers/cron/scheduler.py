"""Fires the jobs: one task a job that sleeps, decides, takes the tick and calls the function.

Time comes from `Time`, so a year passes in a test in a moment; its sleeps are short enough to notice that the wall
clock was set. Runs on one event loop; called by `__main__`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from iii import InvocationError
from stdlib_workers.cron.job_store import Entry
from stdlib_workers.cron.jobs import Decision, Job, decide, iso_utc, next_look, payload_from


class JobStore(Protocol):
    """What the scheduler needs of the ledger."""

    def open(self, key: str, now: datetime) -> Awaitable[Entry]: ...
    def take(self, key: str, seen: datetime, step: Decision, *, fires: bool) -> Awaitable[bool]: ...
    def ended(self, key: str, tick: datetime) -> Awaitable[None]: ...


class Time:
    """The wall clock, and sleeping; tests have another."""

    # Sleeps run on the monotonic clock, jobs on the wall: look at it at least so often, in seconds.
    longest_sleep = 30.0

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Sleep so long, on a clock that nobody sets."""
        await asyncio.sleep(seconds)


# Calls the function of a trigger id with a payload.
Fire = Callable[[str, dict[str, Any]], Awaitable[Any]]


@dataclass
class ScheduledJob:
    """A job that is on: its triggers (several while its worker reloads), its task, its run."""

    job: Job
    triggers: list[str]
    task: asyncio.Task[None] | None = None
    runs: set[asyncio.Task[None]] = field(default_factory=set)
    last: datetime | None = None
    skipped: int = 0
    queued: tuple[datetime, int] | None = None


class Scheduler:
    """All jobs of one engine."""

    def __init__(
        self, records: JobStore, fire: Fire, *, time: Time | None = None, log: Callable[[str], None] = lambda _: None
    ) -> None:
        self._records = records
        self._fire = fire
        self._time = time or Time()
        self._clock = self._time.now
        self._log = log
        self.entrants: dict[str, ScheduledJob] = {}

    def add(self, trigger_id: str, job: Job) -> None:
        """Look after a job. One that is on already gets one trigger more; its ticks are fired for the latest."""
        known = self.entrants.get(job.key)
        if known is not None:
            known.triggers.append(trigger_id)
            known.job = job
            return
        entrant = self.entrants[job.key] = ScheduledJob(job, [trigger_id])
        if next_look(job, self._clock()) is None:
            self._log(f"{job.key}: {job.schedule.text!r} never comes again")
        entrant.task = asyncio.get_running_loop().create_task(self._look_after(entrant))

    def remove(self, trigger_id: str) -> bool:
        """Let go of a trigger; the job ends with its last one. Runs go on. False for an unknown id."""
        for key, entrant in self.entrants.items():
            if trigger_id in entrant.triggers:
                entrant.triggers.remove(trigger_id)
                if not entrant.triggers:
                    del self.entrants[key]
                    if entrant.task is not None:
                        entrant.task.cancel()
                return True
        return False

    async def run_now(self, key: str) -> dict[str, Any]:
        """Fire a job at once, beside its schedule; returns the payload. KeyError for an unknown job."""
        entrant = self._find(key)
        now = self._clock()
        payload = payload_from(entrant.triggers[-1], entrant.job, now, now, 0) | {"trigger": "manual"}
        await self._fire(entrant.triggers[-1], payload)
        return payload

    def _find(self, key: str) -> ScheduledJob:
        for entrant in self.entrants.values():
            if key == entrant.job.key or key in entrant.triggers:
                return entrant
        raise KeyError(key)

    async def _look_after(self, entrant: ScheduledJob) -> None:
        entry = await self._records.open(entrant.job.key, self._clock())
        entrant.last = entry.last
        if entry.running is not None:
            self._log(f"{entrant.job.key}: the run of {iso_utc(entry.running)} did not end; it is fired again")
            self._start(entrant, entry.running, entry.missed)
        was_running = False
        while True:
            step = decide(entrant.job, entrant.last, self._clock(), was_running=was_running)
            was_running = True
            if step is not None:
                await self._take(entrant, step)
            due = next_look(entrant.job, entrant.last)
            if due is None:
                return
            await self._time.sleep(max(0.0, min(self._time.longest_sleep, (due - self._clock()).total_seconds())))

    async def _take(self, entrant: ScheduledJob, step: Decision) -> None:
        seen, entrant.last = entrant.last, step.last
        assert seen is not None
        fires = step.fire is not None and not (entrant.runs and entrant.job.overlap == "skip")
        if not await self._records.take(entrant.job.key, seen, step, fires=fires):
            return
        if fires and step.fire is not None:
            self._start(entrant, step.fire, step.missed)
        elif step.fire is not None:
            entrant.skipped += 1
            self._log(f"{entrant.job.key}: {iso_utc(step.fire)} is skipped, the run before it has not ended")
        elif step.missed:
            self._log(
                f"{entrant.job.key}: {step.missed} ticks until {iso_utc(step.last)} were missed and are not made up"
            )

    def _start(self, entrant: ScheduledJob, tick: datetime, missed: int) -> None:
        if entrant.runs:
            # At most one waits: what comes meanwhile is counted as missed by it.
            earlier = entrant.queued
            entrant.queued = (tick, missed if earlier is None else missed + earlier[1] + 1)
            return
        run = asyncio.get_running_loop().create_task(self._run(entrant, tick, missed))
        entrant.runs.add(run)

    async def _run(self, entrant: ScheduledJob, tick: datetime, missed: int) -> None:
        trigger = entrant.triggers[-1] if entrant.triggers else ""
        payload = payload_from(trigger, entrant.job, tick, self._clock(), missed)
        try:
            if trigger:
                await self._fire(trigger, payload)
        except InvocationError as error:
            self._log(f"{entrant.job.key}: the run of {iso_utc(tick)} failed: {error}")
        await self._records.ended(entrant.job.key, tick)
        entrant.runs.clear()
        queued, entrant.queued = entrant.queued, None
        if queued is not None:
            self._start(entrant, *queued)

    def rows(self) -> list[dict[str, Any]]:
        """Return every job with its next tick, as `cron::list` shows it."""
        return [self._row(entrant) for entrant in self.entrants.values()]

    def _row(self, entrant: ScheduledJob) -> dict[str, Any]:
        due = next_look(entrant.job, entrant.last or self._clock())
        return {
            "job": entrant.job.key,
            "job_id": entrant.triggers[-1],
            "expression": entrant.job.schedule.text,
            "timezone": str(entrant.job.zone),
            "next": None if due is None else iso_utc(due),
            "running": bool(entrant.runs),
            "skipped": entrant.skipped,
        }
