"""What is to be done about a job now: fire, make up for what was missed, or wait. Pure; called by `scheduler`.

The only state of a job is the last tick that was dealt with. A tick is dealt with by moving that on, which only one
engine can do (`ledger`), so a job fires once however many look at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from stdlib_workers.cron.expression import Schedule, parse
from stdlib_workers.cron.upcoming import zone_from

# A tick this old is late, not missed: the machine was busy.
LATE_TOLERANCE = timedelta(seconds=5)
# A clock that was set back further than this has been corrected: what was fired in its future does not count.
CORRECTION = timedelta(hours=3)
# Missed ticks are counted up to here.
MAX_MISSED = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """What a binding asks for. `key` is the same after a restart, when trigger ids are new."""

    key: str
    schedule: Schedule
    zone: tzinfo = UTC
    catch_up: str = "none"
    overlap: str = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision: `last` becomes the last tick dealt with; `fire` is the tick to fire, None for nothing."""

    last: datetime
    fire: datetime | None = None
    missed: int = 0


def job_from(config: Any, function_id: str, namespace: str | None) -> Job:
    """Return the job of a binding. ValueError for anything that is wrong with its config."""
    fields = config if isinstance(config, dict) else {}
    expression = fields.get("expression")
    if not isinstance(expression, str) or not expression.strip():
        raise ValueError("a cron trigger needs an expression")
    name = fields.get("timezone") or "UTC"
    given = fields.get("name")
    if given is not None and (not isinstance(given, str) or not given.strip()):
        raise ValueError(f"name must be a string that is not blank, not {given!r}")
    return Job(
        given or f"{namespace or 'default'}/{function_id} {expression.strip()} {name}",
        parse(expression),
        zone_from(str(name)),
        _choice(fields, "catch_up", ("none", "once")),
        _choice(fields, "overlap", ("skip", "queue")),
    )


def _choice(fields: dict[str, Any], key: str, choices: tuple[str, ...]) -> str:
    value = fields.get(key, choices[0])
    if value not in choices:
        raise ValueError(f"{key} must be {' or '.join(choices)}, not {value!r}")
    return str(value)


def decide(job: Job, last: datetime, now: datetime, *, was_running: bool) -> Decision | None:
    """Return what to do at `now` about ticks after `last`; None when there is none yet.

    `was_running`: this engine has looked after the job since `last`, so a tick of the last seconds is only late.
    """
    if last - now > CORRECTION:
        return Decision(now)
    ticks = _ticks(job, last, now)
    if not ticks:
        return None
    latest = _latest(job, ticks[-1], now)
    is_late = was_running and now - latest <= LATE_TOLERANCE
    missed = len(ticks) - is_late
    if is_late or job.catch_up == "once":
        return Decision(latest, latest, missed)
    return Decision(latest, None, missed)


def _ticks(job: Job, last: datetime, now: datetime) -> list[datetime]:
    ticks: list[datetime] = []
    tick = job.schedule.next_after(last, job.zone)
    while tick is not None and tick <= now and len(ticks) < MAX_MISSED:
        ticks.append(tick)
        tick = job.schedule.next_after(tick, job.zone)
    return ticks


def _latest(job: Job, tick: datetime, now: datetime) -> datetime:
    """Return the last tick up to `now`, without walking through all of them."""
    span = timedelta(seconds=1)
    while now - span > tick:
        following = job.schedule.next_after(now - span, job.zone)
        if following is not None and following <= now:
            return _ticks(job, now - span, now)[-1]
        span *= 2
    return tick


def next_look(job: Job, last: datetime) -> datetime | None:
    """Return when the job has something to do, None for never again."""
    return job.schedule.next_after(last, job.zone)


def iso_utc(moment: datetime) -> str:
    """Return an instant as it stands in payloads, like 2026-01-01T00:00:00+00:00."""
    return moment.astimezone(UTC).isoformat()


def payload_from(trigger_id: str, job: Job, scheduled: datetime, now: datetime, missed: int) -> dict[str, Any]:
    """Return what the function gets. `tick_id` is the same if the tick is ever fired twice."""
    return {
        "trigger": "cron",
        "job_id": trigger_id,
        "scheduled_time": iso_utc(scheduled),
        "actual_time": iso_utc(now),
        "tick_id": f"{job.key}@{iso_utc(scheduled)}",
        "missed": missed,
    }
