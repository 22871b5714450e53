"""Cron jobs: what a binding asks for, and what to do about a job now: fire, make up for missed ticks, or wait. Pure.

The only state of a job is the last tick that was dealt with. Dealing with a tick moves that on, which only one engine
can do (`job_store`), so a job fires once however many engines watch it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from stdlib_workers.cron.expression import Schedule, parse, zone_from

# A tick this old is late, not missed: the machine was busy.
LATE_TOLERANCE = timedelta(seconds=5)
# A clock that was set back further than this has been corrected: ticks that were fired ahead of it do not count.
CLOCK_CORRECTION = timedelta(hours=3)
# Missed ticks are counted up to here.
MAX_MISSED = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """What a binding asks for. `key` is the same after a restart, when trigger ids are new.

    A key that the user has given (`is_named`) belongs to one trigger; of those made from function and schedule several
    triggers may have the same.
    """

    key: str
    schedule: Schedule
    zone: tzinfo = UTC
    catch_up: str = "none"
    overlap: str = "skip"
    is_named: bool = False

    def next_tick(self, last: datetime) -> datetime | None:
        """Return the first tick after `last`, None when there is none."""
        return self.schedule.next_after(last, self.zone)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: `last` becomes the last tick dealt with; `fire` is the tick to fire, None for nothing."""

    last: datetime
    fire: datetime | None = None
    missed: int = 0


def job_from(config: Any, function_id: str, namespace: str | None) -> Job:
    """Return the job of a binding. ValueError for anything that is wrong with its config."""
    fields = config if isinstance(config, dict) else {}
    expression = fields.get("expression")
    if not isinstance(expression, str) or not expression.strip():
        raise ValueError("a cron trigger needs an expression")
    timezone = fields.get("timezone") or "UTC"
    name = fields.get("name")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise ValueError(f"name must be a string that is not blank, not {name!r}")
    return Job(
        name or f"{namespace or 'default'}/{function_id} {expression.strip()} {timezone}",
        parse(expression),
        zone_from(str(timezone)),
        _choice(fields, "catch_up", ("none", "once")),
        _choice(fields, "overlap", ("skip", "queue")),
        is_named=name is not None,
    )


def _choice(fields: dict[str, Any], key: str, choices: tuple[str, ...]) -> str:
    value = fields.get(key, choices[0])
    if value not in choices:
        raise ValueError(f"{key} must be {' or '.join(choices)}, not {value!r}")
    return str(value)


def decide(job: Job, last: datetime, now: datetime, *, was_running: bool) -> Decision | None:
    """Return what to do at `now` about ticks after `last`; None when there is none yet.

    `was_running`: this engine has watched the job since `last`, so a tick of the last seconds is only late.
    """
    if last - now > CLOCK_CORRECTION:
        return Decision(now)
    ticks = _ticks(job, last, now)
    if not ticks:
        return None
    latest = _latest(job, ticks[-1], now)
    is_late = was_running and now - latest <= LATE_TOLERANCE
    missed = len(ticks) - is_late
    fires = is_late or job.catch_up == "once"
    return Decision(latest, latest if fires else None, missed)


def _ticks(job: Job, last: datetime, now: datetime) -> list[datetime]:
    ticks: list[datetime] = []
    tick = job.next_tick(last)
    while tick is not None and tick <= now and len(ticks) < MAX_MISSED:
        ticks.append(tick)
        tick = job.next_tick(tick)
    return ticks


def _latest(job: Job, tick: datetime, now: datetime) -> datetime:
    """Return the last tick up to `now`, without walking through all of them."""
    span = timedelta(seconds=1)
    while now - span > tick:
        following = job.next_tick(now - span)
        if following is not None and following <= now:
            return _ticks(job, now - span, now)[-1]
        span *= 2
    return tick


def iso_utc(moment: datetime) -> str:
    """Return an instant as payloads show it, like 2026-01-01T00:00:00+00:00."""
    return moment.astimezone(UTC).isoformat()


def payload_from(trigger_id: str, key: str, scheduled: datetime, now: datetime, missed: int) -> dict[str, Any]:
    """Return what the function gets. `tick_id` is the same if the tick is ever fired twice."""
    return {
        "trigger": "cron",
        "job_id": trigger_id,
        "scheduled_time": iso_utc(scheduled),
        "actual_time": iso_utc(now),
        "tick_id": f"{key}@{iso_utc(scheduled)}",
        "missed": missed,
    }
