"""The cron worker: the trigger type `cron` with `cron::list`, `cron::run` and `cron::next`, and schedules by calls."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iii import (
    InitOptions,
    InvocationError,
    TriggerConfig,
    TriggerHandler,
    Worker,
    current_invocation,
    register_worker,
)
from iii.declarations import load_declarations
from stdlib_workers.cron.expression import upcoming
from stdlib_workers.cron.job_store import SCHEMA, SqliteJobStore
from stdlib_workers.cron.jobs import iso_utc, job_from
from stdlib_workers.cron.schedule_runner import ScheduleRunner
from stdlib_workers.cron.schedule_store import ScheduleStore
from stdlib_workers.cron.scheduler import Scheduler, Time
from stdlib_workers.cron.schedules import schedule_from
from stdlib_workers.events.bindings import Target, fire, new_trace, target_from
from stdlib_workers.storage import UNUSABLE, Store, look_after, map_storage_errors, open_store
from stdlib_workers.values import check_config, in_memory, read_options

MAX_UPCOMING = 1000
# A run that never ends would stop its job for ever.
RUN_TIMEOUT_MS = 86_400_000


class Provider(TriggerHandler):
    """Binds functions to expressions. Its methods run on the SDK's loop and hand over to the scheduler's loop."""

    def __init__(self, worker: Worker, job_store: SqliteJobStore, time: Time) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._targets: dict[str, Target] = {}
        self.scheduler = Scheduler(job_store, self._fire, time=time, log=lambda text: sys.stderr.write(f"{text}\n"))

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Start a job. ValueError for a wrong expression or option, and for a name that another trigger has."""
        job = job_from(config.config, config.function_id, config.namespace)
        self._targets[config.id] = target_from(config)
        try:
            await self.on_loop(self.scheduler.admit(config.id, job))
        except ValueError:
            del self._targets[config.id]
            raise

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """End a job; a run that has begun goes on."""
        self._targets.pop(config.id, None)
        await self.on_loop(self.scheduler.leave(config.id))

    async def _fire(self, trigger_id: str, payload: dict[str, Any]) -> Any:
        target = self._targets.get(trigger_id)
        # Condition and function are one run, so one trace: a new one for a tick, the caller's for `cron::run`.
        trace = new_trace() if current_invocation() is None else None
        return target and await fire(self._worker, target, payload, trace, timeout_ms=RUN_TIMEOUT_MS)

    async def on_loop(self, work: Any) -> Any:
        """Await a coroutine of the scheduler's loop from the SDK's."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


class Schedules:
    """The functions of schedules that are made at run time. They run on the SDK's loop, `runner` on the caller's."""

    def __init__(self, worker: Worker, store: Store, time: Time) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = ScheduleStore(store)
        self.runner = ScheduleRunner(
            worker, self._store, time=time, log=lambda text: sys.stderr.write(f"{text}\n"), timeout_ms=RUN_TIMEOUT_MS
        )

    async def schedule(self, payload: Any) -> dict[str, Any]:
        """Make the schedule `id`, or change it; it outlives its maker and restarts."""
        try:
            schedule = schedule_from(payload, self.runner.now())
        except ValueError as error:
            raise InvocationError("invalid_schedule", str(error)) from None
        work = asyncio.run_coroutine_threadsafe(self.runner.put(schedule), self._loop)
        due, has_changed = await asyncio.wrap_future(work)
        following = None if due is None else iso_utc(datetime.fromtimestamp(due / 1000, UTC))
        return {"id": schedule.id, "next": following, "changed": has_changed}

    async def unschedule(self, payload: Any) -> dict[str, Any]:
        """Forget the schedule `id`; a run that has begun goes on."""
        id = str((payload or {}).get("id"))
        return {"id": id, "removed": await self._store.remove(id)}

    async def list(self, payload: Any) -> dict[str, Any]:
        """Return a page of schedules by id: `prefix` of their ids, `function_id`, `limit`, and `after` an id."""
        fields = payload or {}
        limit = min(int(fields.get("limit") or 50), MAX_UPCOMING)
        rows = await self._store.page(
            str(fields.get("after") or ""),
            limit + 1,
            self.runner.now(),
            prefix=str(fields.get("prefix") or ""),
            function_id=fields.get("function_id"),
        )
        more = len(rows) > limit
        return {"schedules": rows[:limit], "after": rows[limit - 1]["id"] if more else None}


def main() -> None:
    """Serve until the engine closes the connection."""
    # The file first: a worker that is connected and does nothing counts as ready.
    store = open_store("cron", SCHEMA, in_memory=read_options(store_in_memory))
    worker = register_worker(options=InitOptions(worker_name="cron"))
    look_after(worker, "cron", store)
    asyncio.run(serve(worker, store, Time()))


def store_in_memory(config: Mapping[str, Any]) -> bool:
    """Tell whether the store shall end with the process. OptionError for an unknown key or adapter."""
    check_config("cron", config)
    return in_memory(config)


async def serve(worker: Worker, store: Store, time: Time) -> None:
    """Register everything, then let the jobs run for ever."""
    provider = Provider(worker, SqliteJobStore(store), time)
    schedules = Schedules(worker, store, time)

    async def list_jobs(_: Any) -> dict[str, Any]:
        """List the jobs with their next tick."""
        return {"jobs": await provider.on_loop(provider.scheduler.rows())}

    async def run_now(payload: Any) -> Any:
        """Fire the job `job` now, beside its schedule, and wait for its run."""
        job = str((payload or {}).get("job"))
        try:
            return await provider.on_loop(provider.scheduler.run_now(job))
        except KeyError:
            raise InvocationError("job_not_found", f"there is no cron job {job!r}; see cron::list") from None

    def next_ticks(payload: Any) -> dict[str, Any]:
        """Return the next `count` instants of `expression` in `timezone`."""
        fields = payload or {}
        count = min(int(fields.get("count") or 5), MAX_UPCOMING)
        try:
            instants = upcoming(str(fields.get("expression")), str(fields.get("timezone") or "UTC"), time.now(), count)
        except ValueError as error:
            raise InvocationError("invalid_payload", str(error)) from None
        return {"next": [iso_utc(moment) for moment in instants]}

    declared = load_declarations(Path(__file__).parent)
    worker.register_trigger_type(declared.trigger_types["cron"], provider)
    handlers: dict[str, Any] = {
        "cron::list": list_jobs,
        "cron::run": run_now,
        "cron::next": next_ticks,
        "cron::schedule": schedules.schedule,
        "cron::unschedule": schedules.unschedule,
        "cron::schedules": schedules.list,
    }
    for function_id, handler in handlers.items():
        worker.register_function(function_id, map_storage_errors(UNUSABLE, handler), **declared.functions[function_id])
    worker.ready()
    await schedules.runner.run()


if __name__ == "__main__":
    main()
