"""Two short tortures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.queue_oracle import most_repeats, repeats, violations
from tests.support.queue_torture import torture


def test_q01_every_invariant_holds_whatever_is_killed(tmp_path: Path) -> None:
    history = torture(tmp_path, jobs=800, kills=3, seed=9)
    assert len(history.acked) + len(history.refused) == len(history.sent) > 800
    assert history.refused
    assert history.dead
    assert repeats(history.by_job()) <= most_repeats(history)
    assert violations(history) == []


@pytest.mark.slow
def test_every_invariant_holds_with_slow_starts_standstills_saves_in_place_and_dead_guards(tmp_path: Path) -> None:
    history = torture(tmp_path, jobs=600, kills=6, seed=4, is_hard=True)
    assert len(history.acked) + len(history.refused) == len(history.sent) > 600
    assert repeats(history.by_job()) <= most_repeats(history)
    assert violations(history) == []
