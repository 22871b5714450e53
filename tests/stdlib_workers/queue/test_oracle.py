"""The proof that the torture's oracle finds what it looks for: each invariant, broken by hand in a good history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.queue_history import History, Kill, KillTimes, Level, QueueLimits, Run
from tests.support.queue_oracle import repeats, violations
from tests.support.queue_oracle_time import Quiet

FIRST, SECOND = Run(1, 1, 10, 1.0, 2.0, id="one"), Run(2, 1, 10, 3.0, 4.0, id="two")

# Both jobs have come before the first one runs.
EARLY: dict[str, object] = {"sent": {1: 0.8, 2: 0.9}, "acked": {1: 0.9, 2: 0.95}}


def good() -> History:
    """Return two jobs of one group, one after the other, in a queue that runs two at once."""
    return History(
        limits={"q": QueueLimits(limit=2, backoff=0.1, attempts=2)},
        queue_of={1: "q", 2: "q"},
        group_of={1: "g", 2: "g"},
        sent={1: 0.8, 2: 2.8},
        acked={1: 0.9, 2: 2.9},
        receipts={1: {"one"}, 2: {"two"}},
        runs=[FIRST, SECOND],
        figures={"q": {"delivered": 2, "dlq_depth": 0, "depth": 0}},
    )


def numbers(history: History) -> set[str]:
    return {line[: line.index(":")] for line in violations(history)}


def test_a_good_history_has_no_violation() -> None:
    assert violations(good()) == []


def adding(**fields: object) -> Callable[[History], None]:
    def add(history: History) -> None:
        for name, value in fields.items():
            setattr(history, name, value)

    return add


def with_runs(*runs: Run) -> Callable[[History], None]:
    return adding(runs=list(runs))


def figure(name: str, value: int) -> Callable[[History], None]:
    return lambda history: history.figures["q"].update({name: value})


def alone(*runs: Run, **fields: object) -> Callable[[History], None]:
    """Return a history without groups and figures: several at once are allowed, and nobody counts."""
    return adding(runs=list(runs), group_of={}, figures={}, **fields)


def second(attempt: int, *, failed: bool = False) -> Run:
    """Return an attempt of the second job, ten seconds after the one before."""
    return Run(2, attempt, 10, attempt * 10.0, attempt * 10.0 + 1, failed, "two")


@pytest.mark.parametrize(
    ("number", "damage"),
    [
        # 1: nothing is lost, and nothing is in two places.
        ("1", alone(FIRST)),
        ("1", alone(FIRST, SECOND, dead={2})),
        ("1", alone(FIRST, SECOND, pending={2})),
        ("1", alone(FIRST, dead={2}, pending={2})),
        # 2: nothing comes from nowhere, and what was refused is not there.
        ("2", alone(FIRST, SECOND, Run(3, 1, 10, 5.0, 6.0))),
        ("2", alone(FIRST, SECOND, refused={2})),
        # 3: what is gone has succeeded.
        ("3", alone(FIRST, replace(SECOND, failed=True))),
        ("3", alone(FIRST, replace(SECOND, end=None), kills=[Kill(3.5, 3.6)])),
        # 4: attempts without repeat, fall or gap; the budget is kept, and who is dead has spent it.
        ("4", alone(FIRST, SECOND, replace(SECOND, begin=5.0, end=6.0, pid=11), kills=[Kill(3.5, 3.6)])),
        ("4", alone(FIRST, replace(SECOND, attempt=2))),
        ("4", alone(FIRST, *(second(n, failed=n < 4) for n in (1, 2, 3, 4)))),
        ("4", alone(FIRST, replace(SECOND, failed=True), dead={2})),
        ("4", alone(FIRST, dead={2})),
        ("4", alone(FIRST, *map(second, range(1, 25)), kills=[Kill(n * 10.0 + 5, n * 10.0 + 6) for n in range(25)])),
        # 5: who runs again has a reason.
        ("5", alone(FIRST, SECOND, replace(SECOND, attempt=2, begin=5.0, end=6.0), kills=[Kill(0.1, 0.2)])),
        ("5", alone(FIRST, SECOND, replace(SECOND, attempt=2, begin=5.0, end=6.0), kills=[Kill(3.5, 3.6, 11)])),
        ("5", alone(FIRST, SECOND, replace(SECOND, attempt=2, begin=5.0, end=6.0), kills=[Kill(2.8, 2.85)])),
        # 7: a group goes in order, one at a time.
        ("7", with_runs(replace(SECOND, begin=0.95, end=1.2), replace(FIRST, begin=3.0, end=4.0))),
        ("7", with_runs(FIRST, replace(SECOND, begin=1.5, end=1.8))),
        # 8: a retry comes neither early nor, while there is room, late.
        ("8", alone(FIRST, replace(SECOND, failed=True), replace(SECOND, attempt=2, begin=4.07, end=5.0))),
        ("8", alone(FIRST, replace(SECOND, failed=True), replace(SECOND, attempt=2, begin=4.4, end=5.0))),
        # 9: a key is one job.
        ("9", adding(receipts={1: {"one"}, 2: {"two", "three"}})),
        ("9", adding(receipts={1: {"one"}, 2: {"three"}})),
        # 10: never over the limit, and not under it for long while jobs are due.
        ("10", alone(FIRST, replace(SECOND, begin=1.5), limits={"q": QueueLimits(limit=1)})),
        ("10", alone(FIRST, replace(SECOND, begin=2.3, end=2.4), **EARLY, full=[(0.0, 9.0)])),
        ("10", alone(FIRST, replace(SECOND, begin=3.1, end=3.2), **EARLY)),
        # 11: the queue says what is the case.
        ("11", figure("delivered", 3)),
        ("11", figure("dlq_depth", 1)),
        ("11", figure("depth", 1)),
    ],
)  # fmt: skip
def test_the_oracle_finds_a_planted_fault(number: str, damage: Callable[[History], None]) -> None:
    history = good()
    damage(history)
    assert number in numbers(history)


def test_6_repeats_that_no_kill_explains_by_number_are_found() -> None:
    history = good()
    history.group_of, history.figures, history.limits = {}, {}, {"q": QueueLimits(limit=1, attempts=9)}
    again = [replace(run, attempt=n, begin=run.begin + 5 * n, end=run.end) for n in (2, 3) for run in (FIRST, SECOND)]
    history.runs += [replace(run, end=run.begin + 0.5) for run in again]
    history.kills = [Kill(4.5, 13.0)]
    assert repeats(history.by_job()) == 4
    assert numbers(history) == {"6"}


def test_a_repeat_after_a_kill_is_explained() -> None:
    for kill in (Kill(3.5, 3.6), Kill(3.5, 3.6, 10)):
        history = good()
        history.kills = [kill]
        history.runs = [FIRST, replace(SECOND, end=None), Run(2, 2, 11, 5.0, 6.0, id="two")]
        assert violations(history) == []


def test_a_gap_after_a_kill_is_explained() -> None:
    history = good()
    history.kills = [Kill(2.85, 2.95)]
    history.runs = [FIRST, replace(SECOND, attempt=2)]
    assert violations(history) == []


def test_a_late_retry_is_no_fault_while_all_slots_are_taken_or_nothing_can_be_asked() -> None:
    taken = [Run(n, 1, 10, 4.05, 4.4, id=str(n)) for n in (3, 4)]
    for others, quiet in ((taken, []), ([], [(4.1, 4.2)])):
        history = good()
        history.group_of, history.quiet = {}, quiet
        history.figures = {}
        history.runs = [FIRST, replace(SECOND, failed=True), Run(2, 2, 10, 4.41, 5.0, id="two"), *others]
        for run in others:
            history.sent[run.job] = history.acked[run.job] = 4.0
            history.queue_of[run.job] = "q"
        assert violations(history) == []


def test_slots_may_stand_empty_while_nothing_can_be_asked() -> None:
    history = good()
    history.group_of, history.quiet, history.full = {}, [(1.2, 2.2)], [(0.0, 9.0)]
    history.sent, history.acked = {1: 0.8, 2: 0.9}, {1: 0.9, 2: 0.95}
    history.runs = [FIRST, replace(SECOND, begin=2.3, end=2.4)]
    assert violations(history) == []


def test_between_short_jobs_slots_may_be_empty() -> None:
    history = good()
    history.group_of = {}
    history.sent, history.acked = {1: 0.8, 2: 0.9}, {1: 0.9, 2: 0.95}
    history.runs = [FIRST, replace(SECOND, begin=2.3, end=2.4)]
    assert violations(history) == []


def test_a_group_offers_one_job_at_a_time() -> None:
    history = good()
    history.full = [(0.0, 9.0)]
    history.sent, history.acked = {1: 0.8, 2: 0.9}, {1: 0.9, 2: 0.95}
    history.runs = [replace(FIRST, end=2.5), replace(SECOND, begin=2.6)]
    assert violations(history) == []


def test_spans_that_touch_are_one() -> None:
    quiet = Quiet(History(quiet=[(5.0, 6.0), (1.0, 2.0), (1.5, 3.0)]))
    assert quiet.spans == [(1.0, 3.0), (5.0, 6.0)]
    assert [quiet.touches(*span) for span in ((0.0, 0.9), (2.5, 4.0), (3.1, 4.9), (0.0, 9.0))] == [
        False,
        True,
        False,
        True,
    ]


def test_levels_and_deaths() -> None:
    level = Level([(1.0, 1), (2.0, -1), (2.0, 1), (3.0, -1)])
    assert [level.most(), level.most(0.0, 0.5), level.most(3.5, 9.0), level.most(1.5, 1.6)] == [1, 0, 0, 1]
    deaths = KillTimes([Kill(1.0, 1.1), Kill(4.0, 4.2), Kill(2.0, 2.1, 10)])
    assert [deaths.count(0.0, 0.9), deaths.count(1.05, 5.0), deaths.count(4.3, 9.0)] == [0, 2, 0]
    assert [deaths.since_last(moment) for moment in (0.5, 4.5)] == [float("inf"), pytest.approx(0.3)]
    ends = [deaths.end_of(Run(1, 1, pid, begin)) for pid, begin in ((10, 1.5), (11, 1.5), (10, 0.5), (10, 3.0))]
    assert ends == [2.1, 4.2, 1.1, 4.2]
