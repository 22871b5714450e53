"""Fires the schedules that were made at run time: one timer for the least due of them, on one event loop.

However many there are, memory holds the runs under way, and no more than `MAX_RUNS` of those; what else is due waits on
disk for a free one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from iii import InvocationError
from stdlib_workers.attempts import DONE, Outcome, Verdict, is_end_of_engine, retry_delay_ms, verdict_from
from stdlib_workers.cron.schedule_store import Row, ScheduleStore
from stdlib_workers.cron.scheduler import STORAGE_RETRY_INTERVAL, Log, Time
from stdlib_workers.cron.schedules import Schedule, request_of
from stdlib_workers.events.bindings import Caller, new_trace

MAX_RUNS = 256
# The pause before a run is made again whose function is not registered, or was interrupted; it doubles.
RETRY_MS = 1000
# Their runs are tried again: the function has not seen the tick, or could not finish with it for no fault of its own.
_AGAIN = (Outcome.MISSING, Outcome.RETURNED, Outcome.INTERRUPTED)


class ScheduleRunner:
    """The schedules of one store and the runs under way. `timeout_ms` is that of a run."""

    def __init__(
        self,
        worker: Caller,
        store: ScheduleStore,
        *,
        time: Time,
        log: Log,
        timeout_ms: int,
        noise: Callable[[], float] = random.random,
    ) -> None:
        self._worker = worker
        self._store = store
        self._time = time
        self._log = log
        self._timeout_ms = timeout_ms
        self._noise = noise
        self._began = self.now()
        self._changed = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()

    def now(self) -> int:
        """Return the time in milliseconds."""
        return round(self._time.now().timestamp() * 1000)

    async def put(self, schedule: Schedule) -> tuple[int | None, bool]:
        """Make or change a schedule; returns when it fires next, and whether anything has changed."""
        due, has_changed = await self._store.put(schedule, self.now())
        self._changed.set()
        return due, has_changed

    async def run(self) -> None:
        """Fire what is due, for ever."""
        recovered = await self._store.recover(self.now())
        if recovered:
            self._log(f"{recovered} runs of schedules did not end; they are made again")
        while True:
            self._changed.clear()
            try:
                due = await self._fire_due()
            except InvocationError as error:
                self._log(f"the schedules cannot be read ({error}); trying again")
                due = self.now() + round(STORAGE_RETRY_INTERVAL * 1000)
            await self._sleep_until(due)

    async def _fire_due(self) -> int | None:
        """Start the runs that are due; returns when to look again, None for not before something changes."""
        free = MAX_RUNS - len(self._runs)
        if free <= 0:
            return None  # the end of a run looks again
        claimed = await self._store.claim(self.now(), self._began, free)
        for row in claimed.rows:
            run = asyncio.get_running_loop().create_task(self._make(row))
            self._runs.add(run)
            run.add_done_callback(self._on_run_ended)
        return claimed.due

    def _on_run_ended(self, run: asyncio.Task[None]) -> None:
        self._runs.discard(run)
        self._changed.set()

    async def _sleep_until(self, due: int | None) -> None:
        """Sleep until that time, or until something changes; the wall clock may be set meanwhile."""
        changed = asyncio.ensure_future(self._changed.wait())
        if due is None:
            await changed
        while not changed.done() and due is not None and (seconds := (due - self.now()) / 1000) > 0:
            sleeping = asyncio.ensure_future(self._time.sleep(min(seconds, self._time.longest_sleep)))
            await asyncio.wait((changed, sleeping), return_when=asyncio.FIRST_COMPLETED)
            sleeping.cancel()
        changed.cancel()

    async def _make(self, row: Row) -> None:
        verdict = await self._call(row)
        again_at = None
        if verdict.outcome in _AGAIN:
            pause = max(verdict.delay_ms, retry_delay_ms(RETRY_MS, row.tries + 1, self._noise()))
            again_at = self.now() + pause
            if not row.tries:
                self._log(f"schedule {row.id}: {verdict.error.get('message')}; it is tried again")
        while True:
            try:
                await self._store.end(row, again_at=again_at)
                return
            except InvocationError as error:
                if not error.retryable:
                    self._log(f"the end of a run of the schedule {row.id} could not be written down: {error}")
                    return
            await asyncio.sleep(STORAGE_RETRY_INTERVAL)

    async def _call(self, row: Row) -> Verdict:
        assert row.tick is not None
        request: dict[str, Any] = request_of(row.schedule, row.tick, row.missed, self.now())
        try:
            await self._worker.trigger_async({**request, "timeout_ms": self._timeout_ms, "trace": new_trace()})
        except InvocationError as error:
            if is_end_of_engine(error):
                await asyncio.Event().wait()  # the next start finds the run under way
            # A failing run is told by the engine, as that of every event, and is not made again.
            return verdict_from(error, row.function_id)
        return DONE
