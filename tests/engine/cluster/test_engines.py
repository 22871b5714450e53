"""Which engines there are, and what silence and a server's word mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.engine.cluster.engines import (
    MAX_ENGINES,
    Beat,
    Engines,
    NameTaken,
    decode_beat,
    encode_beat,
)

OWN, B = Beat("1a", "a", started_at_ms=10), Beat("1b", "b", started_at_ms=20)


@pytest.fixture
def engines() -> Engines:
    made = Engines(OWN)
    made.is_settled = True
    return made


def test_an_engine_is_new_once_and_its_own_heartbeat_is_nobodys(engines: Engines) -> None:
    assert engines.heard(B, 0.0)
    assert not engines.heard(B, 1.0)
    assert not engines.heard(OWN, 1.0)
    assert repr(engines) == "<Engines a and 1 others>"


def test_an_engine_that_a_server_misses_right_after_it_was_heard_has_ended(engines: Engines) -> None:
    engines.heard(B, 0.0)
    engines.refused("1b", 0.3)
    assert engines.lost(0.3) == []  # its server may have died, and it connects to another one
    engines.refused("1b", 0.46)
    (gone,) = engines.lost(0.46)
    assert (gone.is_ended, gone.details["reason"], gone.details["engine"]) == (True, "worker_exited", "b")
    assert engines.lost(0.5) == []


def test_an_engine_that_came_back_on_another_server_has_not_ended(engines: Engines) -> None:
    engines.heard(B, 0.0)
    engines.refused("1b", 0.3)
    engines.heard_from("1b", 0.4)
    engines.refused("1b", 0.6)
    assert engines.lost(0.6) == []


def test_an_engine_that_a_server_misses_after_seconds_of_silence_is_unreachable_and_not_dead(engines: Engines) -> None:
    engines.heard(B, 0.0)
    engines.refused("1b", 2.5)
    engines.refused("1b", 2.7)
    (gone,) = engines.lost(2.7)
    assert (gone.is_ended, gone.details["reason"]) == (False, "engine_unreachable")
    assert "may still run the call" in gone.words


def test_an_engine_that_is_silent_is_unreachable_after_three_seconds(engines: Engines) -> None:
    engines.heard(B, 0.0)
    assert engines.lost(2.9) == []
    (gone,) = engines.lost(3.0)
    assert (gone.is_ended, gone.words) == (False, "engine b has not been heard for 3 s; it may still run the call")


def test_what_this_engine_did_not_hear_while_it_stood_still_says_nothing(engines: Engines) -> None:
    engines.heard(B, 0.0)
    engines.refused("1b", 0.1)
    engines.excuse(15.0)
    assert engines.lost(15.0) == []


def test_an_engine_that_has_not_come_back_yet_after_an_outage_of_all_has_not_ended(engines: Engines) -> None:
    engines.heard(B, 0.0)
    engines.excuse(5.0)
    engines.refused("1b", 5.1)
    engines.refused("1b", 5.5)
    assert engines.lost(5.5) == []
    engines.heard_from("1b", 6.0)
    engines.refused("1b", 6.1)
    engines.refused("1b", 6.3)
    assert [gone.is_ended for gone in engines.lost(6.3)] == [True]


def test_the_second_engine_of_a_name_leaves_and_the_first_one_stays() -> None:
    first, second = Engines(OWN), Engines(Beat("2a", "a", "hello", started_at_ms=50))
    first.is_settled = True
    assert not first.heard(second.own, 0.0)
    with pytest.raises(NameTaken) as refused:
        second.heard(OWN, 0.0)
    assert refused.value.beat is OWN


@pytest.mark.parametrize("skew", [-600_000, 600_000])
def test_row_18_a_clock_that_is_ten_minutes_off_changes_nothing(skew: int) -> None:
    first, second = Engines(OWN), Engines(Beat("2a", "a", "hello", started_at_ms=50 + skew))
    first.is_settled = True
    assert not first.heard(second.own, 0.0)
    with pytest.raises(NameTaken):
        second.heard(OWN, 0.0)
    assert first.heard(Beat("1b", "b", started_at_ms=20 + skew), 0.0)
    assert first.lost(2.9) == []


def test_of_two_that_start_together_one_stays() -> None:
    first, second = Beat("1a", "a", "hello", started_at_ms=10), Beat("2a", "a", "hello", started_at_ms=10)
    assert not Engines(first).heard(second, 0.0)
    with pytest.raises(NameTaken):
        Engines(second).heard(first, 0.0)


def test_an_engine_that_was_away_leaves_when_another_one_has_been_started_in_its_place(engines: Engines) -> None:
    with pytest.raises(NameTaken):
        engines.heard(Beat("2a", "a", started_at_ms=50), 0.0)
    assert not engines.heard(Beat("0a", "a", started_at_ms=5), 0.0)


def test_no_more_engines_are_kept_than_a_cluster_has(engines: Engines) -> None:
    for number in range(MAX_ENGINES):
        assert engines.heard(Beat(f"x{number}", f"x{number}"), 0.0)
    assert not engines.heard(B, 0.0)
    assert len(engines.others) == MAX_ENGINES


def test_a_heartbeat_is_read_as_it_was_written() -> None:
    beat = Beat("1a", "a", "hello", ("gpu",), 5, "1.0", "host", 7)
    assert decode_beat(encode_beat(beat)) == beat


@given(st.binary(max_size=300))
def test_any_bytes_are_a_heartbeat_or_none(data: bytes) -> None:
    assert decode_beat(data) is None


@pytest.mark.parametrize(
    "beat", [Beat("1", ""), Beat("1", "a\x1b[2J"), Beat("1", "a" * 65), Beat("a.b", "a"), Beat("", "a")]
)
def test_names_that_cannot_be_shown_or_addressed_are_refused(beat: Beat) -> None:
    assert decode_beat(encode_beat(beat)) is None
    assert decode_beat(b" " * 10_000) is None
