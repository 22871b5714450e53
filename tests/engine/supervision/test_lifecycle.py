"""The tables of a worker's states."""

from __future__ import annotations

import pytest

from iii.engine.supervision.lifecycle import ENTER, MOVES, Action, Actual, Availability, Desired, Event, State, step

HISTORIES = [
    ("a start that works", ["start", "ready sent"], ["spawn", "promote"], "ready"),
    (
        "a stop ends the process, then settles",
        ["start", "ready sent", "stop", "exited"],
        ["spawn", "promote", "end", "settle"],
        "stopped",
    ),
    (
        "a crash waits, then spawns",
        ["start", "ready sent", "crashed", "elapsed"],
        ["spawn", "promote", "wait", "spawn"],
        "starting",
    ),
    ("too many crashes refuse", ["start", "gave up"], ["spawn", "refuse"], "failed"),
    ("a change retries a failed worker", ["start", "gave up", "changed"], ["spawn", "refuse", "spawn"], "starting"),
    ("a change cuts the backoff short", ["start", "crashed", "changed"], ["spawn", "wait", "spawn"], "starting"),
    ("a late timer does nothing", ["start", "crashed", "restart", "elapsed"], ["spawn", "wait", "spawn"], "starting"),
    ("a stopped worker ignores changes", ["start", "stop", "exited", "changed"], ["spawn", "end", "settle"], "stopped"),
    (
        "start during a stop spawns after the exit",
        ["start", "stop", "start", "exited"],
        ["spawn", "end", "spawn"],
        "starting",
    ),
    (
        "a finished worker starts again when it changes",
        ["start", "ready sent", "finished", "changed"],
        ["spawn", "promote", "settle", "spawn"],
        "starting",
    ),
    ("a stop during the backoff settles at once", ["start", "crashed", "stop"], ["spawn", "wait", "settle"], "stopped"),
    ("ready during a stop is too late", ["start", "stop", "ready sent"], ["spawn", "end"], "stopping"),
]


@pytest.mark.parametrize(
    ("events", "actions", "end"), [row[1:] for row in HISTORIES], ids=[row[0] for row in HISTORIES]
)
def test_a_history_leads_to_its_actions(events: list[str], actions: list[str], end: str) -> None:
    state, done = State(), []
    for event in events:
        state, action = step(state, Event(event))
        if action is not None:
            done.append(action.value)
    assert (done, state.actual.value) == (actions, end)


def test_every_state_can_be_left_upwards_and_downwards() -> None:
    for actual in Actual:
        assert MOVES[Desired.UP][actual], f"UP is stuck in {actual}"
        if actual is not Actual.STOPPED:
            assert MOVES[Desired.DOWN][actual], f"DOWN is stuck in {actual}"


def test_only_starting_spawns() -> None:
    assert [actual for actual, action in ENTER.items() if action is Action.SPAWN] == [Actual.STARTING]


@pytest.mark.parametrize(
    ("desired", "actual", "expected"),
    [
        (Desired.UP, Actual.READY, Availability.SERVING),
        (Desired.UP, Actual.BACKOFF, Availability.EXPECTED),
        (Desired.UP, Actual.STOPPING, Availability.EXPECTED),
        (Desired.UP, Actual.FAILED, Availability.UNAVAILABLE),
        (Desired.UP, Actual.STOPPED, Availability.UNAVAILABLE),
        (Desired.DOWN, Actual.READY, Availability.UNAVAILABLE),
        (Desired.DOWN, Actual.STOPPING, Availability.UNAVAILABLE),
    ],
)
def test_calls_wait_only_for_a_worker_that_is_on_its_way_up(
    desired: Desired, actual: Actual, expected: Availability
) -> None:
    assert State(desired, actual).availability is expected
