"""What follows a turn or an attempt."""

from __future__ import annotations

import pytest

from iii import InvocationError
from stdlib_workers.attempts import Outcome, Verdict, verdict_from
from stdlib_workers.flow.model import LIFE, Event, Run, State
from stdlib_workers.flow.policy import (
    MAX_DEATHS,
    MAX_INTERRUPTIONS,
    RECOVERY_DELAY_MS,
    CallOptions,
    after_attempt,
    after_turn,
    is_unanswered,
)

DIED = Verdict(Outcome.FAILED, {"code": "invocation_stopped"}, killed=True)
FAILED = Verdict(Outcome.FAILED, {"code": "sold_out", "stacktrace": "..."})
STOPPED = Verdict(Outcome.INTERRUPTED, {"code": "invocation_stopped"})


def run_in(state: State) -> Run:
    return Run(1, "r", "f::x", None, None, None, "", 0, state=state)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_a_run_moves_along_the_table_only(state: State, event: Event) -> None:
    for to in State:
        run = run_in(state)
        if to in LIFE.get((state, event), ()):
            run.move(event, to)
            assert run.state is to
        else:
            with pytest.raises(RuntimeError, match=f"cannot be {to.name} by {event.name}"):
                run.move(event, to)


def test_every_state_is_reached_and_every_one_but_the_ends_is_left() -> None:
    reached = {to for states in LIFE.values() for to in states}
    left = {state for state, _ in LIFE}
    assert reached | {State.QUEUED} == set(State)
    assert set(State) - left == {State.COMPLETED, State.CANCELLED}


def test_the_fifth_death_without_a_new_step_fails_a_run() -> None:
    ends = [after_turn(DIED, deaths, 0, has_recorded=False) for deaths in range(MAX_DEATHS)]
    assert [end.state for end in ends] == [State.PARKED] * 4 + [State.FAILED]
    assert [end.delay_ms for end in ends[:4]] == [250, 500, 1000, 2000]
    assert after_turn(DIED, MAX_DEATHS - 1, 0, has_recorded=True) == (State.PARKED, 1, 0, RECOVERY_DELAY_MS)


def test_the_twentieth_interruption_blocks_a_run_and_a_reload_counts_no_death() -> None:
    first = after_turn(STOPPED, 3, 0, has_recorded=False)
    assert first == (State.PARKED, 3, 1, RECOVERY_DELAY_MS)
    pauses = [after_turn(STOPPED, 0, times, has_recorded=False).delay_ms for times in range(MAX_INTERRUPTIONS - 1)]
    assert sum(pauses) > 60_000  # a worker that is gone for a minute blocks no run
    assert after_turn(STOPPED, 0, MAX_INTERRUPTIONS - 1, has_recorded=False).state is State.BLOCKED


def test_a_turn_that_did_not_begin_counts_nothing() -> None:
    missing = Verdict(Outcome.MISSING, {"code": "function_not_found"})
    assert after_turn(missing, 1, 2, has_recorded=False) == (State.HELD, 1, 2, 0)
    returned = Verdict(Outcome.RETURNED, {"code": "overloaded"}, delay_ms=100)
    assert after_turn(returned, 1, 2, has_recorded=False) == (State.PARKED, 1, 2, 100)


def test_attempts_are_spent_until_the_last_one() -> None:
    options = CallOptions(max_retries=3, backoff_ms=1000)
    delays = [after_attempt(FAILED, spent, options, 0.5) for spent in range(3)]
    assert delays == [(1000, True), (2000, True), (None, True)]
    assert after_attempt(FAILED, 0, CallOptions(max_retries=0), 0.5).delay_ms is None


def test_the_first_death_of_a_callee_is_followed_at_once_and_an_interruption_spends_nothing() -> None:
    options = CallOptions()
    assert after_attempt(DIED, 0, options, 0.5) == (RECOVERY_DELAY_MS, True)
    assert after_attempt(DIED, 1, options, 0.5) == (2000, True)
    assert after_attempt(STOPPED, 2, options, 0.5) == (RECOVERY_DELAY_MS, False)


def test_a_refused_payload_is_not_sent_again_and_a_handlers_own_error_of_that_code_is() -> None:
    refused = verdict_from(InvocationError("invalid_payload", "no"), "f::x")
    assert after_attempt(refused, 0, CallOptions(), 0.5) == (None, True)
    own = verdict_from(InvocationError("invalid_payload", "no", stacktrace="..."), "f::x")
    assert after_attempt(own, 0, CallOptions(), 0.5).delay_ms is not None


def test_only_an_attempt_that_nobody_has_answered_may_have_had_its_effect() -> None:
    assert is_unanswered(DIED)
    assert is_unanswered(Verdict(Outcome.FAILED, {"code": "TIMEOUT"}))
    assert not is_unanswered(FAILED)
    assert not is_unanswered(Verdict(Outcome.FAILED, {"code": "TIMEOUT", "stacktrace": "its own"}))
