"""The fields of a cron expression: text -> the set of values it means. Pure.

Every error is a ValueError that names the field and the part of it that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a grammar. `names` count from `low`; With `takes_question_mark`, `?` means `*`."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    takes_question_mark: bool = False

    def parse(self, text: str) -> frozenset[int]:
        """Return the values that `text` means."""
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
