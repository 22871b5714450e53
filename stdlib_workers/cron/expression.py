"""Cron expressions: text -> `Schedule`, and from one instant to the next one it names. Pure.

No library has this grammar (5, 6 and 7 fields, years, two weekday numberings, days that are ANDed); a layer that
corrects a library's answers for all of that would be as long as this module. Five fields are a crontab's: day and
weekday are ORed when both are given. Six and seven begin with seconds and AND them.

Summer time: a schedule with fixed hours fires once for a time that is skipped (at the first moment after the gap) and
once for a time that comes twice (at the first). A schedule with `*` for the hour follows the time that really passes:
it neither bunches up nor pauses. Instants are UTC datetimes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from iii.durations import PATTERN, parse_duration

MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
SHORTHANDS = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 1",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_DURATIONS = re.compile(f"(?:{PATTERN})+")
MIN_EVERY = 0.1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a grammar. `names` count from `low`; with `takes_question_mark`, `?` means `*`."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    takes_question_mark: bool = False

    def parse(self, text: str) -> frozenset[int]:
        """Return the values that `text` means. ValueError names the field and the part of it that is wrong."""
        return frozenset(value for item in text.split(",") for value in self._item(item))

    def _item(self, item: str) -> range:
        body, slash, step_text = item.partition("/")
        step = 1
        if slash:
            if not step_text.isascii() or not step_text.isdigit() or not 1 <= int(step_text) <= self.high:
                raise self._wrong(item, f"a step is a number from 1 to {self.high}")
            step = int(step_text)
        if body == "*" or (body == "?" and self.takes_question_mark):
            return range(self.low, self.high + 1, step)
        first, dash, last = body.partition("-")
        low = self._value(first, item)
        if dash:
            high = self._value(last, item)
            if high < low:
                raise self._wrong(item, f"a range goes up, and {first} is after {last}")
            return range(low, high + 1, step)
        if slash and not body.isdigit():
            raise self._wrong(item, "a step needs a number, a range or * before it")
        return range(low, (self.high if slash else low) + 1, step)

    def _value(self, text: str, item: str) -> int:
        if text.isascii() and text.isdigit():
            value = int(text)
            if self.low <= value <= self.high:
                return value
            hint = ""
            if self.names is WEEKDAYS and value == 0:
                hint = "; with 6 or 7 fields the week is 1 = Sunday to 7 = Saturday, as names it is sun to sat"
            raise self._wrong(item, f"{value} is not from {self.low} to {self.high}{hint}")
        values = [
            value for value, name in enumerate(self.names, self.low) if len(text) >= 3 and name.startswith(text.lower())
        ]
        if len(values) == 1:
            return values[0]
        raise self._wrong(item, f"{text!r} is not a {self.name}")

    def _wrong(self, item: str, why: str) -> ValueError:
        return ValueError(f"{self.name} {item!r}: {why}")


SECOND = Field("second", 0, 59)
MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
DAY = Field("day of month", 1, 31, takes_question_mark=True)
MONTH = Field("month", 1, 12, MONTHS)
YEAR = Field("year", 1970, 2100)
# In a crontab (five fields) 0 and 7 are Sunday; otherwise 1 is.
CRONTAB_WEEKDAY = Field("day of week", 0, 7, WEEKDAYS, takes_question_mark=True)
WEEKDAY = Field("day of week", 1, 7, WEEKDAYS, takes_question_mark=True)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The instants an expression names. `every` is for `@every`: multiples of it since 1970, whatever the zone."""

    text: str
    seconds: frozenset[int] = frozenset({0})
    minutes: frozenset[int] = frozenset({0})
    hours: frozenset[int] = frozenset({0})
    days: frozenset[int] = frozenset(range(1, 32))
    months: frozenset[int] = frozenset(range(1, 13))
    weekdays: frozenset[int] = frozenset(range(7))  # 0 is Sunday
    years: frozenset[int] = frozenset(range(1970, 2101))
    either_day: bool = False  # day or weekday, not both
    every: timedelta | None = None

    def next_after(self, moment: datetime, zone: tzinfo = UTC) -> datetime | None:
        """Return the first instant after `moment`, None when there is none until 2100."""
        if self.every is not None:
            return EPOCH + ((moment - EPOCH) // self.every + 1) * self.every
        follows_clock = len(self.hours) == 24
        local = self._match(_naive(moment, zone) + _SECOND)
        while local is not None:
            instant = _instant(local, moment, zone, follows_clock=follows_clock)
            if instant is not None:
                return self._in_repeated_hour(moment, instant, zone) if follows_clock else instant
            local = self._match(local + _SECOND)
        return None

    def _in_repeated_hour(self, moment: datetime, instant: datetime, zone: tzinfo) -> datetime:
        """Return the earlier instant in an hour that is repeated between `moment` and `instant`, else `instant`."""
        if _offset(instant, zone) >= _offset(moment, zone):
            return instant
        change = _change_between(moment, instant, zone)
        again = self._match(_naive(change, zone))
        if again is None:
            return instant
        return min(instant, again.replace(tzinfo=zone, fold=1).astimezone(UTC))

    def _match(self, local: datetime) -> datetime | None:
        """Return the first local time from `local` on that the fields name."""
        local = local.replace(microsecond=0)
        day = local.replace(hour=0, minute=0, second=0)
        if self._is_day(day):
            time = self._time_from(local)
            if time is not None:
                return time
        next_day = self._day_after(day)
        return None if next_day is None else self._time_from(next_day)

    def _time_from(self, local: datetime) -> datetime | None:
        for hour in sorted(value for value in self.hours if value >= local.hour):
            for minute in sorted(value for value in self.minutes if hour > local.hour or value >= local.minute):
                is_later = (hour, minute) > (local.hour, local.minute)
                seconds = [value for value in self.seconds if is_later or value >= local.second]
                if seconds:
                    return local.replace(hour=hour, minute=minute, second=min(seconds))
        return None

    def _day_after(self, day: datetime) -> datetime | None:
        last = max(self.years)
        while day.year <= last:
            day = day + timedelta(days=1)
            if day.month not in self.months or day.year not in self.years:
                # To the last day of the month; the next round makes it the first of the next one.
                day = (day.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
            elif self._is_day(day):
                return day
        return None

    def _is_day(self, day: datetime) -> bool:
        if day.month not in self.months or day.year not in self.years:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return in_month or in_week if self.either_day else in_month and in_week


def parse(text: str) -> Schedule:
    """Return the schedule of an expression. ValueError names it, says which part is wrong, and why."""
    stripped = text.strip()
    try:
        if stripped.startswith("@every"):
            return Schedule(stripped, every=_parse_every(stripped.removeprefix("@every").strip()))
        if stripped.startswith("@") and stripped not in SHORTHANDS:
            raise ValueError(f"it is none of {', '.join(SHORTHANDS)}, @every 5s")
        return _parse_fields(stripped, SHORTHANDS.get(stripped, stripped).split())
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def zone_from(name: str) -> ZoneInfo:
    """Return the time zone of this name. ValueError when there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"timezone must be a name like Europe/Berlin, not {name!r}") from None


def upcoming(expression: str, timezone: str, moment: datetime, count: int) -> list[datetime]:
    """Return up to `count` instants after `moment`, in the zone's own time."""
    schedule, zone = parse(expression), zone_from(timezone)
    instants: list[datetime] = []
    while len(instants) < count:
        following = schedule.next_after(moment, zone)
        if following is None:
            break
        moment = following
        instants.append(moment.astimezone(zone))
    return instants


def _parse_fields(text: str, parts: list[str]) -> Schedule:
    if len(parts) not in (5, 6, 7):
        raise ValueError(f"it has {len(parts)} fields; there are 5 (crontab), 6 (from seconds) or 7 (with years)")
    either_day = False
    if len(parts) == 5:
        parts = ["0", *parts]
        either_day = not parts[3].startswith(("*", "?")) and not parts[5].startswith(("*", "?"))
        weekdays = frozenset(value % 7 for value in CRONTAB_WEEKDAY.parse(parts[5]))
    else:
        weekdays = frozenset(value - 1 for value in WEEKDAY.parse(parts[5]))
    parts[5:] = parts[6:] or ["*"]
    fields = (SECOND, MINUTE, HOUR, DAY, MONTH, YEAR)
    second, minute, hour, day, month, year = (field.parse(part) for field, part in zip(fields, parts, strict=True))
    return Schedule(text, second, minute, hour, day, month, weekdays, year, either_day)


def _parse_every(text: str) -> timedelta:
    if not _DURATIONS.fullmatch(text):
        raise ValueError(f"@every needs a duration like 5s or 1h30m, not {text!r}")
    seconds = sum(map(parse_duration, re.findall(PATTERN, text)))
    if not MIN_EVERY <= seconds <= 366 * 86400:
        raise ValueError(f"@every takes 100ms to 366d, not {text!r}")
    return timedelta(milliseconds=round(seconds * 1000))


def _instant(local: datetime, moment: datetime, zone: tzinfo, *, follows_clock: bool) -> datetime | None:
    """Return the instant after `moment` at which a local time is fired, None when there is none."""
    first = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _naive(first, zone) != local:
        # The clock jumps over this time.
        if follows_clock:
            return None
        before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
        change = _change_between(before, first, zone)
        return change if change > moment else None
    if first > moment:
        return first
    second = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    return second if follows_clock and second > moment else None


def _change_between(start: datetime, end: datetime, zone: tzinfo) -> datetime:
    """Return the first second after `start` with the offset of `end`; they differ in one change of the offset."""
    target = _offset(end, zone)
    while end - start > _SECOND:
        middle = start + timedelta(seconds=int((end - start).total_seconds()) // 2)
        if _offset(middle, zone) == target:
            end = middle
        else:
            start = middle
    return end


def _naive(moment: datetime, zone: tzinfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(moment: datetime, zone: tzinfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()
