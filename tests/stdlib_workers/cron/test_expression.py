"""Which instants an expression names: the grammar, the calendar, and summer time in three zones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from stdlib_workers.cron.expression import Schedule, parse


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def instants(expression: str, start: str, count: int, zone: str = "UTC") -> list[str]:
    """The next `count` instants, as UTC."""
    schedule, moment, found = parse(expression), at(start), []
    for _ in range(count):
        following = schedule.next_after(moment, ZoneInfo(zone))
        assert following is not None
        moment = following
        found.append(moment.strftime("%Y-%m-%dT%H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("*/15 * * * *", "2026-01-01T00:07", ["2026-01-01T00:15:00", "2026-01-01T00:30:00"]),
        ("30 10 * * * *", "2026-01-01T00:00", ["2026-01-01T00:10:30", "2026-01-01T01:10:30"]),
        ("5/20 0 0 * * *", "2026-01-01T00:00:05", ["2026-01-01T00:00:25", "2026-01-01T00:00:45"]),
        ("0 0 29 2 *", "2026-01-01T00:00", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        ("0 0 0 1 1 ? 2030", "2026-01-01T00:00", ["2030-01-01T00:00:00"]),
        ("0 0 13 * fri", "2026-01-01T00:00", ["2026-01-02T00:00:00", "2026-01-09T00:00:00", "2026-01-13T00:00:00"]),
        ("0 0 0 13 * FRIDAY", "2026-01-01T00:00", ["2026-02-13T00:00:00", "2026-03-13T00:00:00"]),
        ("0 0 * * 7", "2026-01-01T00:00", ["2026-01-04T00:00:00"]),
        ("0 0 * * 0", "2026-01-01T00:00", ["2026-01-04T00:00:00"]),
        ("0 0 0 * * 1", "2026-01-01T00:00", ["2026-01-04T00:00:00"]),
        ("0 0 0 * * 2-6", "2026-01-02T00:00", ["2026-01-05T00:00:00"]),
        ("0 12 1 Jan-Mar/2 *", "2026-01-02T00:00", ["2026-03-01T12:00:00"]),
        ("@yearly", "2026-05-05T00:00", ["2027-01-01T00:00:00"]),
        ("@annually", "2026-05-05T00:00", ["2027-01-01T00:00:00"]),
        ("@monthly", "2026-01-02T00:00", ["2026-02-01T00:00:00", "2026-03-01T00:00:00"]),
        ("@weekly", "2026-01-01T00:00", ["2026-01-04T00:00:00"]),
        ("@daily", "2026-01-01T00:00", ["2026-01-02T00:00:00", "2026-01-03T00:00:00"]),
        ("@midnight", "2026-01-01T00:00", ["2026-01-02T00:00:00"]),
        ("0 0 0 ? * tues,Thurs,SAT", "2026-01-02T00:00", ["2026-01-03T00:00:00", "2026-01-06T00:00:00"]),
        ("0 0 0 ? * 1-5", "2026-01-02T00:00", ["2026-01-04T00:00:00", "2026-01-05T00:00:00"]),
        ("0 0 0 * * 7", "2026-01-01T00:00", ["2026-01-03T00:00:00"]),
        ("0 0 0 1 dec ? 2030-2040/5", "2026-01-01T00:00", ["2030-12-01T00:00:00", "2035-12-01T00:00:00"]),
        ("0 0 0 1 1 ? 2100", "2026-01-01T00:00", ["2100-01-01T00:00:00"]),
        ("0 10-20/5 0 * * *", "2026-01-01T00:00", ["2026-01-01T00:10:00", "2026-01-01T00:15:00"]),
        ("@hourly", "2026-01-01T00:00", ["2026-01-01T01:00:00"]),
        ("@every 90s", "2026-01-01T00:00:01", ["2026-01-01T00:01:30", "2026-01-01T00:03:00"]),
        ("@every 1h30m", "2026-01-01T00:00:01", ["2026-01-01T01:30:00"]),
    ],
)
def test_an_expression_names_its_instants(expression: str, start: str, expected: list[str]) -> None:
    assert instants(expression, start, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("60 * * * *", "60 is not from 0 to 59"),
        ("*/0 * * * *", "step is a number from 1"),
        ("*/60 * * * *", "step is a number from 1 to 59"),
        ("5-1 * * * *", "goes up"),
        ("0 0 0 * * 0", "1 = Sunday"),
        ("0 0 0 * * 8", "8 is not from 1 to 7"),
        ("0 0 0 * * mon/2", "a step needs a number"),
        ("? * * * *", "minute"),
        ("0 0 * ? *", "month"),
        ("24 0 0 0 * *", "24 0 0 0 * *"),
        ("0 24 * * *", "24 is not from 0 to 23"),
        ("0 0 32 * *", "32 is not from 1 to 31"),
        ("0 0 0 * *", "0 is not from 1 to 31"),
        ("0 0 1 13 *", "13 is not from 1 to 12"),
        ("0 0 * * 8", "8 is not from 0 to 7"),
        ("0 0 0 1 1 ? 1969", "1969 is not from 1970 to 2100"),
        ("0 0 0 1 1 ? 2101", "2101 is not from 1970 to 2100"),
        ("0 0 0 * * sat-mon", "goes up"),
        ("0 0 0 W * *", "day of month"),
        ("0 0 0 * * 2#1", "day of week"),
        ("1,,2 * * * *", "minute"),
        ("* * * * * * * *", "8 fields"),
        ("@Daily", "none of @yearly"),
        ("0 0 L * *", "day of month"),
        ("0 0 * ju *", "month"),
        ("٣ * * * *", "minute"),
        ("@reboot", "none of @yearly"),
        ("@every", "needs a duration"),
        ("@every 10", "needs a duration"),
        ("@every 1ms", "100ms to 366d"),
    ],
)
def test_q24_a_wrong_expression_is_refused_by_its_part(expression: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(expression)
    assert said in str(caught.value)
    # Whoever reads a log must find the trigger.
    assert str(caught.value).startswith(repr(expression))


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 0 1 1 * 1999", "0 0 31 4,6,9,11 *"])
def test_q24_an_expression_without_a_future_ends(expression: str) -> None:
    assert parse(expression).next_after(at("2026-01-01T00:00")) is None


def test_nothing_comes_after_the_last_year() -> None:
    assert parse("* * * * *").next_after(at("2200-01-01T00:00")) is None


# Summer time. New York: gap 2026-03-08 02:00 -> 03:00 (07:00 UTC), repeated hour 2026-11-01 01:00-02:00 (06:00 UTC).
# Berlin: gap 2026-03-29 01:00 UTC, repeated hour 2026-10-25 (01:00 UTC). Lord Howe: half an hour, 2026-10-03 15:30 UTC
# forward, 2026-04-04 15:00 UTC back.
@pytest.mark.parametrize(
    ("zone", "expression", "start", "expected"),
    [
        ("America/New_York", "30 2 * * *", "2026-03-08T00:00", ["2026-03-08T07:00:00", "2026-03-09T06:30:00"]),
        ("America/New_York", "*/20 2 * * *", "2026-03-08T00:00", ["2026-03-08T07:00:00", "2026-03-09T06:00:00"]),
        ("America/New_York", "30 1 * * *", "2026-11-01T00:00", ["2026-11-01T05:30:00", "2026-11-02T06:30:00"]),
        ("America/New_York", "30 1 * * *", "2026-11-01T06:10", ["2026-11-02T06:30:00"]),
        (
            "America/New_York",
            "30 * * * *",
            "2026-11-01T04:40",
            ["2026-11-01T05:30:00", "2026-11-01T06:30:00", "2026-11-01T07:30:00"],
        ),
        ("America/New_York", "30 * * * *", "2026-03-08T06:00", ["2026-03-08T06:30:00", "2026-03-08T07:30:00"]),
        ("Europe/Berlin", "30 2 * * *", "2026-03-29T00:00", ["2026-03-29T01:00:00", "2026-03-30T00:30:00"]),
        ("Europe/Berlin", "0 3 * * *", "2026-03-29T00:00", ["2026-03-29T01:00:00", "2026-03-30T01:00:00"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30:00", "2026-10-26T01:30:00"]),
        ("Europe/Berlin", "0 * * * *", "2026-10-24T23:30", [f"2026-10-25T0{hour}:00:00" for hour in range(4)]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00", ["2026-10-03T15:30:00", "2026-10-04T15:15:00"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00", ["2026-04-04T14:45:00", "2026-04-05T15:15:00"]),
    ],
)
def test_q22_summer_time_fires_a_skipped_and_a_repeated_time_once(
    zone: str, expression: str, start: str, expected: list[str]
) -> None:
    assert instants(expression, start, len(expected), zone) == expected


def pieces(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    step = st.integers(1, max(1, high // 2))
    # Ends that differ: theirs takes 3-3/2 for 3/2.
    ends = st.lists(number, min_size=2, max_size=2, unique=True).map(sorted)
    ranges = ends.map(lambda pair: f"{pair[0]}-{pair[1]}")
    stepped = st.tuples(st.one_of(st.just("*"), ranges), step).map(lambda parts: f"{parts[0]}/{parts[1]}")
    item = st.one_of(number.map(str), ranges, stepped)
    return st.one_of(st.just("*"), st.lists(item, min_size=1, max_size=3).map(",".join))


crontabs = st.tuples(pieces(0, 59), pieces(0, 23), pieces(1, 28), pieces(1, 12), pieces(0, 6)).map(" ".join)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(crontabs, moments)
def test_in_utc_five_fields_mean_what_an_independent_implementation_says(text: str, moment: datetime) -> None:
    # Theirs takes a day field that begins with a star, like */2, for no restriction as well.
    assert parse(text).next_after(moment) == next(CronSim(text, moment))


@given(crontabs, moments, st.sampled_from(["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "UTC"]))
def test_the_next_instant_is_later_and_the_one_before_it_finds_the_same(text: str, moment: datetime, name: str) -> None:
    schedule, zone = parse(text), ZoneInfo(name)
    found = schedule.next_after(moment, zone)
    assert found is not None
    assert found > moment
    assert schedule.next_after(found - timedelta(seconds=1), zone) == found


def test_a_schedule_is_its_fields() -> None:
    assert parse("0 0 0 * * *") == Schedule("0 0 0 * * *")
