"""What a misspelled name may have meant."""

from __future__ import annotations

import pytest

from iii.suggestions import did_you_mean, nearest_names, standard_worker_of


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


@pytest.mark.parametrize(
    ("function_id", "worker"),
    [
        ("state::get", "state"),
        ("iii::queue::list", "queue"),
        ("queue::define", "queue"),
        ("engine::traces::list", "observability"),
        ("publish", "pubsub"),
        ("publisher::x", None),
        ("engine::workers::list", None),
        ("math::add", None),
    ],
)
def test_a_function_of_a_standard_worker_is_known_by_its_id(function_id: str, worker: str | None) -> None:
    assert standard_worker_of(function_id) == worker
