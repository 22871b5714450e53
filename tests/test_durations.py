"""Durations as people write them."""

from __future__ import annotations

import pytest

from iii.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("100ms", 0.1), ("5s", 5.0), ("1.5m", 90.0), ("2h", 7200.0), ("7d", 604_800.0), ("0s", 0.0)]
)
def test_a_number_and_a_unit_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", ".5s", "5S", "1h30m", "5s\n", "1e3s"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration like"):
        parse_duration(text)
