"""What the end of a turn or of an attempt means, and when the next one is due. Pure: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stdlib_workers.attempts import Outcome, Verdict, retry_delay_ms
from stdlib_workers.flow.model import State

# Of one run without a new step in between: deaths are the body's fault, interruptions are not, but they must end.
MAX_DEATHS = 5
MAX_INTERRUPTIONS = 20
# A call whose end is unknown is repeated when the engine has told its handler of the end.
RECOVERY_DELAY_MS = 250
MAX_PAUSE_MS = 10_000
# When a body has met a storage that took nothing.
STORAGE_DELAY_MS = 1000
# An undo function gets at least so many attempts: what it does not undo stays.
MIN_UNDO_ATTEMPTS = 5
# The engine refuses these before any handler runs, and would again.
_FINAL = ("invalid_payload", "payload_too_large", "FORBIDDEN")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a step calls its function. `max_retries` counts all attempts; 0 and 1 both mean one."""

    max_retries: int = 3
    backoff_ms: int = 1000
    timeout_ms: int = 1_800_000  # of one attempt; never without
    queue: str | None = None
    namespace: str | None = None

    @property
    def attempts(self) -> int:
        """How many attempts may fail before the step has."""
        return max(1, self.max_retries)


class Next(NamedTuple):
    """What comes after an attempt: another one in `delay_ms`, or, if that is None, the end with the attempt's error.

    `is_spent`: the attempt counts against `max_retries`.
    """

    delay_ms: int | None
    is_spent: bool


def after_attempt(verdict: Verdict, spent: int, options: CallOptions, noise: float, *, attempts: int = 0) -> Next:
    """Say what follows an attempt that has not succeeded, after `spent` others that have failed."""
    if verdict.outcome in (Outcome.RETURNED, Outcome.MISSING):
        return Next(verdict.delay_ms or 1000, is_spent=False)
    if verdict.outcome in (Outcome.INTERRUPTED, Outcome.SHARED_CRASH):
        return Next(RECOVERY_DELAY_MS, is_spent=False)
    failures = spent + 1
    is_refused = verdict.error.get("code") in _FINAL and "stacktrace" not in verdict.error
    if is_refused or failures >= (attempts or options.attempts):
        return Next(None, is_spent=True)
    if verdict.killed and failures == 1:
        return Next(RECOVERY_DELAY_MS, is_spent=True)
    return Next(retry_delay_ms(options.backoff_ms, failures, noise), is_spent=True)


class TurnEnd(NamedTuple):
    """Where a run goes after a turn that the body has not ended itself, and what was counted.

    `delay_ms`: it stays away from a slot for so long.
    """

    state: State
    deaths: int
    interrupted: int
    delay_ms: int = 0


def after_turn(verdict: Verdict, deaths: int, interrupted: int, *, has_recorded: bool) -> TurnEnd:
    """Say what follows a turn that died or was interrupted. `has_recorded`: the turn has made a step."""
    if has_recorded:
        deaths = interrupted = 0
    if verdict.outcome is Outcome.MISSING:
        return TurnEnd(State.HELD, deaths, interrupted)
    if verdict.outcome is Outcome.RETURNED:
        return TurnEnd(State.PARKED, deaths, interrupted, verdict.delay_ms or 100)
    if verdict.outcome is Outcome.FAILED and verdict.killed:
        is_last = deaths + 1 >= MAX_DEATHS
        return TurnEnd(State.FAILED if is_last else State.PARKED, deaths + 1, interrupted, _pause_ms(deaths))
    is_last = interrupted + 1 >= MAX_INTERRUPTIONS
    return TurnEnd(State.BLOCKED if is_last else State.PARKED, deaths, interrupted + 1, _pause_ms(interrupted))


def _pause_ms(times: int) -> int:
    """How long a run waits whose worker is gone: it may take a while to be back, and each look at it counts."""
    pause: int = RECOVERY_DELAY_MS * 2 ** min(times, 10)
    return min(MAX_PAUSE_MS, pause)


def is_unanswered(verdict: Verdict) -> bool:
    """Whether nobody can say if the function has had its effect: then its step is undone although it failed."""
    return verdict.killed or (
        verdict.error.get("code") in ("TIMEOUT", "cancelled") and "stacktrace" not in verdict.error
    )
