"""What is said once, and what is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iii.engine.supervision.reports import Notice, Repeated
from iii.engine.terminal.repeats import FIRST_WINDOW, MAX_DISTINCT, MAX_GROUPS, Repeats

LOOP = Notice("it failed", "web")


def test_a_report_that_comes_again_is_counted_until_its_window_ends() -> None:
    repeats = Repeats()
    assert [repeats.is_new(LOOP, "a", "web", now) for now in (0.0, 1.0, 2.0)] == [True, False, False]
    assert repeats.due == FIRST_WINDOW
    assert repeats.take(9.0) == []
    assert repeats.take(10.0) == [Repeated(LOOP, 2, 10.0)]


def test_what_goes_on_is_told_less_often_and_what_has_ended_is_new_again() -> None:
    repeats = Repeats()
    repeats.is_new(LOOP, "a", "web", 0.0)
    repeats.is_new(LOOP, "a", "web", 1.0)
    assert repeats.take(10.0) == [Repeated(LOOP, 1, 10.0)]
    repeats.is_new(LOOP, "a", "web", 11.0)
    assert (repeats.due, repeats.take(29.0)) == (30.0, [])
    assert repeats.take(30.0) == [Repeated(LOOP, 1, 20.0)]
    assert repeats.take(70.0) == []
    assert (repeats.due, repeats.is_new(LOOP, "a", "web", 71.0)) == (None, True)


def test_a_flood_of_different_reports_is_counted_as_one() -> None:
    repeats = Repeats()
    shown = [repeats.is_new(LOOP, key, "web", 0.0) for key in range(1000)]
    assert sum(shown) == MAX_DISTINCT
    assert repeats.is_new(LOOP, "x", "mail", 0.0), "another group is not concerned"
    assert repeats.take(10.0) == [Repeated(LOOP, 1000 - MAX_DISTINCT, 10.0, is_others=True)]


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 500)), max_size=300))
def test_every_report_is_shown_or_counted_and_memory_is_bounded(seen: list[tuple[int, int]]) -> None:
    repeats = Repeats()
    shown = sum(repeats.is_new(LOOP, (key, group), group, 0.0) for key, group in seen)
    counted = sum(repeated.count for repeated in repeats.take(0.0, everything=True))
    assert shown + counted == len(seen)
    assert shown <= (MAX_GROUPS + 1) * MAX_DISTINCT
