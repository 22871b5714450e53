"""A torture of state, short and long, and the proof that its checker finds what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.linear import NEVER, Operation, is_linearizable
from tests.support.state_torture import torture

WHOLE = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("operations", "kills"), [(1_600, 4), pytest.param(100_000, 100, marks=WHOLE)])
def test_q18_what_clients_see_across_kills_is_linearizable(tmp_path: Path, operations: int, kills: int) -> None:
    outcome = torture(tmp_path, operations, kills, seed=11)
    assert outcome.acknowledged >= operations
    assert sum(outcome.kills.values()) >= kills // 2
    assert outcome.violations() == []
    assert outcome.integrity == "ok"


def test_the_checker_itself_can_fail() -> None:
    write = Operation("set", 1, 0, 1)
    assert is_linearizable([write, Operation("get", 1, 0.5, 2)])
    assert is_linearizable([write, Operation("get", None, 0.5, 2)])
    assert not is_linearizable([write, Operation("get", None, 1.5, 2)])
    assert not is_linearizable([Operation("cas", 2, 0, 1, 0), Operation("cas", 3, 0, 1, 0)], 0)
    assert is_linearizable([Operation("set", 1, 0, NEVER), Operation("get", None, 5, 6), Operation("get", 1, 7, 8)])
    assert not is_linearizable([Operation("set", 1, 0, NEVER), Operation("get", 1, 5, 6), Operation("get", None, 7, 8)])
    assert is_linearizable([Operation("set", n, n, n + 20) for n in range(9)] + [Operation("get", 3, 30, 31)])
    assert not is_linearizable([Operation("set", n, n, n + 0.5) for n in range(9)] + [Operation("get", 3, 30, 31)])


def test_a_write_without_an_answer_has_happened_in_its_time_or_never() -> None:
    write = Operation("set", 1, 0, 2, is_certain=False)
    assert is_linearizable([write, Operation("get", 1, 3, 4)])
    assert is_linearizable([write, Operation("get", None, 3, 4), Operation("get", None, 5, 6)])
    assert not is_linearizable([write, Operation("get", None, 3, 4), Operation("get", 1, 5, 6)])
    deletion = Operation("set", None, 2, 4, is_certain=False)
    assert is_linearizable(
        [Operation("set", 1, 0, 1), deletion, Operation("get", 1, 3, 3.5), Operation("get", None, 5, 6)]
    )
    assert not is_linearizable([Operation("set", 1, 0, 1), Operation("get", None, 2, 3)])


def test_an_acknowledged_write_that_is_lost_is_found() -> None:
    history = [Operation("cas", 1, 0, 1, expected=None), Operation("cas", 2, 2, 3, expected=1)]
    assert is_linearizable([*history, Operation("get", 2, 4, 5)])
    assert not is_linearizable([*history, Operation("get", 1, 4, 5)])
    assert not is_linearizable([*history, Operation("cas", 3, 4, 5, expected=1)])
