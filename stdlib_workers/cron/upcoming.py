"""The next instants of an expression, for people: `cron::next` and `iii cron next`. Pure; knows no SDK."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stdlib_workers.cron.expression import parse


def zone_from(name: str) -> ZoneInfo:
    """Return the time zone of this name. ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"timezone must be a name like Europe/Berlin, not {name!r}") from None


def upcoming(expression: str, timezone: str, moment: datetime, count: int) -> list[datetime]:
    """Return up to `count` instants after `moment`, in the zone's own time."""
    schedule, zone = parse(expression), zone_from(timezone)
    found: list[datetime] = []
    while len(found) < count:
        following = schedule.next_after(moment, zone)
        if following is None:
            break
        moment = following
        found.append(moment.astimezone(zone))
    return found
