"""What a misspelled name may have meant."""

from __future__ import annotations

from iii.suggestions import did_you_mean, nearest_names


def test_the_nearest_names_come_first_and_no_more_than_asked_for() -> None:
    known = ["math::sub", "math::adder", "math::add", "mail::send"]
    assert nearest_names("math::ad", known, count=2) == ["math::add", "math::adder"]
    assert nearest_names("math::ad", known) == ["math::add"]


def test_what_is_less_alike_than_the_cutoff_is_left_out() -> None:
    assert nearest_names("--jon", ["--json"], cutoff=0.7) == ["--json"]
    assert nearest_names("--j", ["--json"], cutoff=0.7) == []


def test_a_hint_ignores_the_case_of_what_was_written() -> None:
    assert did_you_mean("WATHC", ["watch", "run"]) == "did you mean `watch`?"
    assert did_you_mean("x", ["watch", "run"]) == ""
