"""A short torture, and the proof that its oracle finds what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from queue_oracle import History, Run, violations
from queue_torture import torture


def test_q01_nothing_acknowledged_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    history = torture(tmp_path, jobs=400, kills=6, seed=7)
    assert len(history.acked) == 400
    assert violations(history) == []


GOOD = [Run(1, 1, 10, 1.0, 2.0), Run(2, 1, 10, 3.0, 4.0)]


def history_of(runs: list[Run], **fields: object) -> History:
    jobs = {run.job for run in GOOD}
    given = {"sent": jobs, "acked": jobs, "concurrency": 1, "group_of": dict.fromkeys(jobs, "g"), **fields}
    return History(runs=runs, **given)  # type: ignore[arg-type]


def test_a_good_history_has_no_violation() -> None:
    assert violations(history_of(GOOD)) == []


@pytest.mark.parametrize(
    ("runs", "fields", "number"),
    [
        (GOOD[:1], {}, "1"),
        ([GOOD[0], Run(2, 1, 10, 3.0, 4.0, failed=True)], {}, "1"),
        ([*GOOD, Run(3, 1, 10, 5.0, 6.0)], {}, "2"),
        ([*GOOD, Run(2, 1, 11, 5.0, 6.0)], {"kills": [3.5]}, "4"),
        ([*GOOD, Run(2, 2, 10, 5.0, 6.0)], {}, "5"),
        ([*GOOD, Run(2, 2, 10, 5.0, 6.0)], {"worker_kills": {11: 3.5}}, "5"),
        ([*GOOD, Run(2, 2, 10, 5.0, 6.0)], {"kills": [2.8]}, "5"),
        ([Run(2, 1, 10, 1.0, 2.0), Run(1, 1, 10, 3.0, 4.0)], {}, "7"),
        ([GOOD[0], Run(2, 1, 10, 1.5, 1.8)], {"concurrency": 2}, "7"),
        ([GOOD[0], Run(2, 1, 10, 1.5, 1.8)], {"group_of": {}}, "10"),
    ],
)
def test_the_oracle_finds_a_planted_fault(runs: list[Run], fields: dict[str, object], number: str) -> None:
    found = violations(history_of(runs, **fields))
    assert [line[: line.index(":")] for line in found] == [number]


def test_a_repeat_after_a_kill_is_explained() -> None:
    for fields in ({"kills": [3.5]}, {"worker_kills": {10: 3.5}}):
        runs = [GOOD[0], Run(2, 1, 10, 3.0), Run(2, 2, 11, 5.0, 6.0)]
        assert violations(history_of(runs, **fields)) == []
