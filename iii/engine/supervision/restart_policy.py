"""Whether and when a worker that died is started again.

Two counters, because one poisonous call must not condemn a healthy worker and a broken worker must not burn
the retries of its calls: an exit while calls were running is *blamed* on the call, any other on the worker.
Pure: the history goes in and comes out, time and jitter are handed in.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from iii.engine.supervision.lifecycle import Event
from iii.engine.supervision.run import ExitReason

FIRST_DELAY = 0.1  # seconds; unnoticeable, and enough to keep a crash loop off the processor
MAX_DELAY = 5.0  # nobody should wait longer for a worker that could be back
JITTER = 0.2  # of the delay, either way: workers that died together do not start together
WINDOW = 60.0  # seconds in which exits are counted
MAX_UNBLAMED = 5  # restarts after exits of its own making, then it is FAILED
MAX_BLAMED = 20  # exits during calls, then backoff
HEALTHY_AFTER = 30.0  # seconds ready: what was before is forgotten

# How a standard worker refuses to start: a wrong option, a store that another process has, one that must not be used.
REFUSALS = frozenset({2, 4, 5})

Policy = Literal["always", "on-failure", "never"]


class History(Struct, frozen=True):
    """The times of recent exits, by who is to blame."""

    unblamed: tuple[float, ...] = ()
    blamed: tuple[float, ...] = ()


class Verdict(Struct, frozen=True):
    """What follows an exit: CRASHED (again after `delay` seconds), GAVE_UP or FINISHED."""

    event: Event
    delay: float = 0.0
    count: int = 0  # of exits of this kind in the window


class Exit(Struct, frozen=True):
    """One exit to judge: `ready_for` seconds it had been ready, -1 if it never was; `jitter` in [-1, 1]."""

    reason: ExitReason
    at: float
    ready_for: float = -1.0
    jitter: float = 0.0


def judge(history: History, exit: Exit, policy: Policy) -> tuple[History, Verdict]:
    """Return the history with this exit in it, and what follows."""
    if exit.reason.permanent:
        return history, Verdict(Event.GAVE_UP)
    if _is_final(exit, policy):
        return history, Verdict(Event.FINISHED if exit.reason.is_clean else Event.GAVE_UP)
    if exit.ready_for >= HEALTHY_AFTER:
        history = History()
    if exit.reason.blamed:
        blamed = (*_recent(history.blamed, exit.at), exit.at)
        count = len(blamed)
        # A few crashes that calls have caused cost nothing but the first delay.
        delay = _delay(max(0, count - MAX_BLAMED), exit.jitter)
        return History(history.unblamed, blamed), Verdict(Event.CRASHED, delay, count)
    unblamed = (*_recent(history.unblamed, exit.at), exit.at)
    count = len(unblamed)
    verdict = (
        Verdict(Event.GAVE_UP, count=count)
        if count > MAX_UNBLAMED
        else Verdict(Event.CRASHED, _delay(count - 1, exit.jitter), count)
    )
    return History(unblamed, history.blamed), verdict


def is_refusal(exit_code: int, *, is_standard: bool, was_ready: bool) -> bool:
    """Tell whether a worker has said by its exit that starting it again cannot help until something changes.
    Only the standard workers say so; the codes of others mean what they like.
    """
    return is_standard and not was_ready and exit_code in REFUSALS


def _is_final(exit: Exit, policy: Policy) -> bool:
    if policy == "never":
        return True
    # Exit code 0 is only a success for a worker that had been ready and was not in the middle of a call.
    finished = exit.reason.is_clean and exit.ready_for >= 0 and not exit.reason.blamed
    return policy == "on-failure" and finished


def _recent(times: tuple[float, ...], now: float) -> tuple[float, ...]:
    return tuple(time for time in times if now - time < WINDOW)


def _delay(doublings: int, jitter: float) -> float:
    delay = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(doublings, 16))
    return float(delay * (1 + JITTER * jitter))
