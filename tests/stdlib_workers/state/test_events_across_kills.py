"""No acknowledged write of state or stream without its event, whatever is killed, though its worker starts slowly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.event_torture import Outcome, torture

WHOLE = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("writes", "kills"), [(400, 3), pytest.param(10_000, 30, marks=WHOLE)])
def test_every_acknowledged_write_fires_in_order(tmp_path: Path, writes: int, kills: int) -> None:
    outcome = torture(tmp_path, writes, kills, seed=6)
    assert outcome.count >= writes
    assert sum(outcome.kills[victim] for victim in ("guard", "engine", "both")) == kills
    assert outcome.lost() == []
    assert outcome.disordered() == []


def test_the_check_itself_can_fail() -> None:
    outcome = Outcome({"a": [1, 2, 3]}, {"a": [1, 3, 1, 3]})
    assert outcome.lost() == ["a 2"]
    assert outcome.disordered() == []
    outcome.seen["a"] = [1, 3, 2, 3]
    assert outcome.lost() == []
    assert outcome.disordered() == ["a"]
