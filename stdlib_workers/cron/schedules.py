"""Schedules that are made at run time: what a request asks for, and what is due. Pure.

A schedule fires by an expression, every so often, or once. It is a row (`schedule_store`), and its next tick a column
of that: nothing of it is in memory. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from stdlib_workers.cron.expression import parse, zone_from
from stdlib_workers.cron.jobs import Job, decide, iso_utc

FIELDS = (
    *("id", "expression", "at", "every_ms", "function_id", "namespace"),
    *("payload", "metadata", "time_zone", "catch_up"),
)
MAX_ID = 256
MAX_BYTES = 262_144  # of a whole schedule: it is read at every tick
MIN_EVERY_MS, MAX_EVERY_MS = 100, 366 * 86_400_000
# The metadata of a call under which a handler finds its schedule.
SCHEDULE = "iii.schedule"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule. Of `expression`, `at` and `every_ms` it has one; `made` is where `every_ms` counts from."""

    id: str
    function_id: str
    made: int
    expression: str | None = None
    at: int | None = None
    every_ms: int | None = None
    namespace: str | None = None
    payload: Any = None
    metadata: Any = None
    time_zone: str = "UTC"
    catch_up: str = "none"

    def next_tick(self, last: int) -> int | None:
        """Return the first tick after `last`, None when there is none."""
        if self.at is not None:
            return self.at if self.at > last else None
        if self.every_ms is not None:
            return self.made + (max(0, last - self.made) // self.every_ms + 1) * self.every_ms
        tick = self._job().next_tick(_moment(last))
        return None if tick is None else _milliseconds(tick)

    def _job(self) -> Job:
        return _job(str(self.expression), self.time_zone, self.catch_up)

    def due(self, last: int, now: int, began: int) -> tuple[int, int] | None:
        """Return the tick to fire at `now` and how many it makes up for; None for nothing. `last` was dealt with last.

        `began`: since when this process has watched. A tick from before that is missed, and `catch_up` says what to
        do; a later one has only had to wait. What is due once is never left out.
        """
        if self.at is not None:
            return (self.at, 0) if last < self.at <= now else None
        if self.every_ms is not None:
            count = max(0, (now - self.made) // self.every_ms) - max(0, (last - self.made) // self.every_ms)
            tick = self.made + (now - self.made) // self.every_ms * self.every_ms
        else:
            decision = decide(self._job(), _moment(last), _moment(now), was_running=False)
            if decision is None:
                return None
            count, tick = decision.missed, _milliseconds(decision.last)
        if count <= 0 or (tick <= began and self.catch_up == "none"):
            return None
        return tick, count - 1


@lru_cache(maxsize=1024)
def _job(expression: str, time_zone: str, catch_up: str) -> Job:
    return Job("", parse(expression), zone_from(time_zone), catch_up)


def schedule_from(request: Any, now: int) -> Schedule:
    """Return the schedule that a request asks for. ValueError says which field is wrong, and the way out."""
    fields: Mapping[str, Any] = request if isinstance(request, dict) else {}
    fields = {name: value for name, value in fields.items() if value is not None and not name.startswith("_")}
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]}; there are {', '.join(FIELDS)}")
    for name in ("id", "function_id"):
        value = fields.get(name)
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_ID:
            raise ValueError(f"{name} must be a string of 1 to {MAX_ID} characters, not {value!r:.80}")
    given = [name for name in ("expression", "at", "every_ms") if name in fields]
    if len(given) != 1:
        raise ValueError(f"a schedule has one of expression, at and every_ms, not {' and '.join(given) or 'none'}")
    time_zone = fields.get("time_zone", "UTC")
    zone = zone_from(str(time_zone))
    catch_up = fields.get("catch_up", "none")
    if catch_up not in ("none", "once"):
        raise ValueError(f"catch_up must be none or once, not {catch_up!r:.80}")
    _check_interval(fields.get("every_ms"), fields.get("expression"))
    at = None if "at" not in fields else _time(fields["at"], zone)
    schedule = Schedule(made=now, **{**fields, "at": at, "time_zone": str(time_zone)})
    if len(orjson.dumps(schedule)) > MAX_BYTES:
        raise ValueError(
            f"payload and metadata must have at most {MAX_BYTES} bytes; put them into a state, send its key"
        )
    if schedule.next_tick(now if at is None else 0) is None:
        raise ValueError(f"{schedule.expression!r} never comes again")
    return schedule


def _check_interval(every: Any, expression: Any) -> None:
    if every is not None and (type(every) is not int or not MIN_EVERY_MS <= every <= MAX_EVERY_MS):
        raise ValueError(f"every_ms must be a whole number from {MIN_EVERY_MS} to {MAX_EVERY_MS}, not {every!r:.80}")
    if expression is not None:
        if not isinstance(expression, str) or len(expression) > MAX_ID:
            raise ValueError(f"expression must be a string of at most {MAX_ID} characters, not {expression!r:.80}")
        parse(expression)


def _time(at: Any, zone: Any) -> int:
    """Return an instant: milliseconds, or an ISO time, which is in the schedule's zone unless it names an offset."""
    try:
        if isinstance(at, int) and not isinstance(at, bool):
            return _milliseconds(_moment(at))
        moment = datetime.fromisoformat(at)
    except (ValueError, TypeError, OverflowError, OSError):
        text = "at must be a time like 2026-01-31T12:00:00+01:00, or milliseconds since 1970"
        raise ValueError(f"{text}, not {at!r:.80}") from None
    return _milliseconds(moment if moment.tzinfo else moment.replace(tzinfo=zone))


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def request_of(schedule: Schedule, tick: int, missed: int, now: int) -> dict[str, Any]:
    """Return the call of a tick: with the schedule's payload, or without one with what a cron trigger gives."""
    scheduled, actual = iso_utc(_moment(tick)), iso_utc(_moment(now))
    event = {
        "trigger": "cron",
        "job_id": schedule.id,
        "scheduled_time": scheduled,
        "actual_time": actual,
        "tick_id": f"{schedule.id}@{scheduled}",
        "missed": missed,
    }
    own = {SCHEDULE: event}
    metadata = schedule.metadata
    return {
        "function_id": schedule.function_id,
        "namespace": schedule.namespace,
        "payload": event if schedule.payload is None else schedule.payload,
        "metadata": {**(metadata or {}), **own} if metadata is None or isinstance(metadata, dict) else metadata,
    }


def row_of(schedule: Schedule, due: int | None, tick: int | None, now: int) -> dict[str, Any]:
    """Return a schedule as `cron::schedules` lists it."""
    when = schedule.next_tick(now) if tick is not None else due
    return {
        "id": schedule.id,
        "function_id": schedule.function_id,
        "namespace": schedule.namespace,
        "expression": schedule.expression,
        "at": None if schedule.at is None else iso_utc(_moment(schedule.at)),
        "every_ms": schedule.every_ms,
        "time_zone": schedule.time_zone,
        "catch_up": schedule.catch_up,
        "payload": schedule.payload,
        "next": None if when is None else iso_utc(_moment(when)),
        "running": tick is not None,
    }
