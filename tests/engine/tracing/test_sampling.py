"""Which traces are recorded: the rate limit first, then the rules, then the ratio; parents where they decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.engine.tracing.sampling import Rule, Sampler, Sampling, is_within_ratio

HEX = "0123456789abcdef"
trace_ids = st.text(HEX, min_size=32, max_size=32)
ratios = st.floats(0.0, 1.0)


@given(trace_ids, ratios, ratios)
def test_a_higher_ratio_lets_through_whatever_a_lower_one_does(trace_id: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert is_within_ratio(trace_id, high) or not is_within_ratio(trace_id, low)


@given(trace_ids)
def test_nothing_has_a_ratio_of_zero_and_everything_one_of_one(trace_id: str) -> None:
    assert not is_within_ratio(trace_id, 0.0)
    assert is_within_ratio(trace_id, 1.0)


def test_a_ratio_lets_through_its_share() -> None:
    ids = [f"{number * 0x9E3779B97F4A7C15 % (1 << 128):032x}" for number in range(1, 10_001)]
    assert 2_300 < sum(is_within_ratio(trace_id, 0.25) for trace_id in ids) < 2_700


@given(st.lists(st.floats(0.0, 2.0), max_size=60), st.floats(0.5, 50.0))
def test_a_limit_never_lets_more_through_than_its_burst_and_its_rate(gaps: list[float], limit: float) -> None:
    sampler, now, passed = Sampler(Sampling(max_traces_per_second=limit)), 100.0, 0
    for gap in gaps:
        now += gap
        passed += sampler.should_sample("f" * 32, "f", "w", now)
    assert passed <= max(1.0, limit) + (now - 100.0) * limit + 1e-6


@given(st.lists(st.floats(0.0, 0.5), min_size=1, max_size=40), st.floats(0.5, 20.0))
def test_a_spent_limit_says_when_to_ask_again(gaps: list[float], limit: float) -> None:
    sampler, now = Sampler(Sampling(max_traces_per_second=limit)), 100.0
    for gap in gaps:
        now += gap
        was_spent = now < sampler.spent_until - 1e-6
        assert not (sampler.should_sample("f" * 32, "f", "w", now) and was_spent)
    later = max(sampler.spent_until, now) + 1e-6
    assert sampler.should_sample("f" * 32, "f", "w", later)


@pytest.mark.parametrize(
    ("rule", "function_id", "service", "is_meant"),
    [
        (Rule(0.0, operation="math::*"), "math::add", "math", True),
        (Rule(0.0, operation="math::ad?"), "math::add", "math", True),
        (Rule(0.0, operation="math::ad"), "math::add", "math", False),
        (Rule(0.0, operation="call math::add"), "math::add", "math", True),
        (Rule(0.0, service="ma*"), "math::add", "math", True),
        (Rule(0.0, service="ma*"), "math::add", "calc", False),
        (Rule(0.0, operation="math::*", service="calc"), "math::add", "math", False),
        (Rule(0.0, operation="a.c"), "abc", "w", False),
        (Rule(0.0), "anything", "w", True),
    ],
)
def test_a_rule_is_meant_when_the_whole_of_both_names_fits(
    rule: Rule, function_id: str, service: str, *, is_meant: bool
) -> None:
    assert Sampler(Sampling(rules=(rule,))).should_sample("f" * 32, function_id, service, 1.0) is not is_meant


def test_the_first_rule_that_fits_decides_and_the_default_the_rest() -> None:
    sampler = Sampler(Sampling(default=0.0, rules=(Rule(0.0, operation="a::b"), Rule(1.0, operation="a::*"))))
    assert [sampler.should_sample("f" * 32, name, "w", 1.0) for name in ("a::b", "a::c", "b::c")] == [
        False,
        True,
        False,
    ]
    assert not sampler.is_closed
    assert Sampler(Sampling(default=0.0)).is_closed


def test_the_limit_is_asked_before_the_rules() -> None:
    sampler = Sampler(Sampling(rules=(Rule(0.0, operation="no::*"),), max_traces_per_second=1.0))
    assert not sampler.should_sample("f" * 32, "no::no", "w", 1.0)  # which took the one token
    assert not sampler.should_sample("f" * 32, "yes::yes", "w", 1.0)
    assert sampler.should_sample("f" * 32, "yes::yes", "w", 2.1)


@pytest.mark.parametrize(
    ("sampling", "follows"),
    [
        (Sampling(), False),
        (Sampling(parent_based=True), True),
        (Sampling(rules=(Rule(1.0),)), True),
        (Sampling(max_traces_per_second=5.0), True),
    ],
)
def test_parents_decide_where_they_are_asked_to_or_rules_and_limits_do(sampling: Sampling, *, follows: bool) -> None:
    sampler = Sampler(sampling)
    assert sampler.should_follow("f" * 32, is_sampled=True)
    assert sampler.should_follow("f" * 32, is_sampled=False) is not follows


def test_what_would_be_recorded_is_told_by_the_ratio_and_the_limit() -> None:
    assert Sampler(Sampling()).share_of(400, 2.0) == 400
    assert Sampler(Sampling(default=0.25)).share_of(400, 2.0) == 100
    assert Sampler(Sampling(max_traces_per_second=100.0)).share_of(400, 2.0) == 200
    assert Sampler(Sampling(max_traces_per_second=100.0)).share_of(400, 60.0) == 400
