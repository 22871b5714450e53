"""Whether a worker that died is started again, and when."""

from __future__ import annotations

import pytest

from iii.engine.supervision.lifecycle import Event
from iii.engine.supervision.restart_policy import History, Policy, Verdict, is_refusal, judge
from iii.engine.supervision.run import ExitReason

CRASH = ExitReason("exited with code 1", exit_code=1)
CLEAN = ExitReason("exited with code 0", exit_code=0)
BLAMED = ExitReason("killed by SIGSEGV", signal=11, blamed=True)


def judge_all(reason: ExitReason, times: list[float], *, ready_for: float = -1.0, jitter: float = 0.0) -> list[Verdict]:
    history, verdicts = History(), []
    for at in times:
        history, verdict = judge(history, "on-failure", reason, at, ready_for=ready_for, jitter=jitter)
        verdicts.append(verdict)
    return verdicts


def test_the_delay_doubles_and_the_sixth_crash_in_a_minute_is_the_last() -> None:
    verdicts = judge_all(CRASH, [0, 1, 2, 3, 4, 5])
    assert [verdict.delay for verdict in verdicts[:5]] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert [verdict.event for verdict in verdicts] == [Event.CRASHED] * 5 + [Event.GAVE_UP]


def test_crashes_more_than_a_minute_apart_never_give_up() -> None:
    assert {verdict.count for verdict in judge_all(CRASH, [0, 60, 120, 180, 240, 300, 360])} == {1}


def test_a_healthy_half_minute_forgets_what_was_before() -> None:
    assert judge_all(CRASH, [0, 1, 2], ready_for=30)[-1].count == 1
    assert judge_all(CRASH, [0, 1, 2], ready_for=29)[-1].count == 3


def test_crashes_blamed_on_calls_never_give_up_but_back_off_after_twenty() -> None:
    verdicts = judge_all(BLAMED, [float(second) for second in range(30)])
    assert {verdict.event for verdict in verdicts} == {Event.CRASHED}
    assert {verdict.delay for verdict in verdicts[:20]} == {0.1}
    assert [verdict.delay for verdict in verdicts[20:23]] == [0.2, 0.4, 0.8]
    assert verdicts[-1].delay == 5.0


def test_blamed_crashes_do_not_count_as_the_workers_own() -> None:
    history = History()
    for at in range(20):
        history, _ = judge(history, "on-failure", BLAMED, at)
    assert judge(history, "on-failure", CRASH, 20)[1].count == 1


def test_jitter_moves_the_delay_by_a_fifth_at_most() -> None:
    assert judge_all(CRASH, [0], jitter=-1)[0].delay == pytest.approx(0.08)
    assert judge_all(CRASH, [0], jitter=1)[0].delay == pytest.approx(0.12)


@pytest.mark.parametrize(
    ("policy", "reason", "ready_for", "expected"),
    [
        ("on-failure", CLEAN, 5.0, Event.FINISHED),
        ("on-failure", CLEAN, -1.0, Event.CRASHED),  # it never became ready: that is no success
        ("on-failure", ExitReason("", exit_code=0, blamed=True), 5.0, Event.CRASHED),  # sys.exit(0) in a handler
        ("always", CLEAN, 5.0, Event.CRASHED),
        ("never", CLEAN, 5.0, Event.FINISHED),
        ("never", CRASH, 5.0, Event.GAVE_UP),
        ("always", ExitReason("no such file", permanent=True), -1.0, Event.GAVE_UP),
    ],
)
def test_the_policy_decides(policy: Policy, reason: ExitReason, ready_for: float, expected: Event) -> None:
    assert judge(History(), policy, reason, 0.0, ready_for=ready_for)[1].event is expected


@pytest.mark.parametrize(
    ("exit_code", "is_standard", "was_ready", "expected"),
    [
        (2, True, False, [Event.GAVE_UP]),
        (4, True, False, [Event.GAVE_UP]),
        (5, True, False, [Event.GAVE_UP]),
        (1, True, False, [Event.CRASHED] * 5 + [Event.GAVE_UP]),
        (74, True, False, [Event.CRASHED] * 5 + [Event.GAVE_UP]),  # the disk failed: recovery has to look
        (5, True, True, [Event.CRASHED] * 5 + [Event.GAVE_UP]),  # refusals come before `ready`
        (5, False, False, [Event.CRASHED] * 5 + [Event.GAVE_UP]),  # somebody's own script
    ],
)
def test_a_standard_worker_that_refuses_to_start_is_not_tried_again(
    exit_code: int, is_standard: bool, was_ready: bool, expected: list[Event]
) -> None:
    permanent = is_refusal(exit_code, is_standard=is_standard, was_ready=was_ready)
    reason = ExitReason("", exit_code=exit_code, permanent=permanent)
    verdicts = judge_all(reason, [float(second) for second in range(len(expected))])
    assert [verdict.event for verdict in verdicts] == expected


def test_a_worker_that_has_never_served_waits_for_a_change_unless_it_is_always_restarted() -> None:
    broken = ExitReason("exited with code 1", exit_code=1)
    assert judge(History(), "on-failure", broken, 0.0, has_served=False)[1] == Verdict(Event.GAVE_UP)
    assert judge(History(), "on-failure", broken, 0.0)[1].event is Event.CRASHED
    assert judge(History(), "always", broken, 0.0, has_served=False)[1].event is Event.CRASHED
    no_room = ExitReason("cannot start a.py: Too many open files (EMFILE)", cause="spawn")
    assert judge(History(), "on-failure", no_room, 0.0, has_served=False)[1].event is Event.CRASHED
