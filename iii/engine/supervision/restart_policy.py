"""Whether and when a worker that died, or that reloads itself, is started again. Pure.

An exit while calls were running is *blamed* on the call, any other exit on the worker. The two are counted apart,
because one poisonous call must not condemn a healthy worker, and a broken worker must not use up its calls' retries.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from iii.engine.supervision.lifecycle import Event
from iii.engine.supervision.run import ExitReason

FIRST_DELAY = 0.1  # seconds; too short to notice, and enough that a crash loop does not take the processor
MAX_DELAY = 5.0  # seconds; a user should not wait longer for a worker that would run again
JITTER = 0.2  # of the delay, more or less: workers that died together do not start together
EXIT_WINDOW = 60.0  # seconds in which exits are counted
MAX_UNBLAMED = 5  # restarts within the window after exits blamed on the worker; then it is FAILED
MAX_BLAMED = 20  # exits within the window blamed on calls; then the delay grows
HEALTHY_AFTER = 30.0  # seconds that a worker was ready: earlier exits are forgotten
MAX_OWN_RELOADS = 5  # reloads within the window that a worker causes itself, by rewriting a file it is watched for
OWN_RELOAD_WINDOW = 10.0  # seconds

# Exit codes of a standard worker that refuses to start: 2 for a wrong option, 4 for a store that another process has
# open, 5 for a store that must not be used.
REFUSALS = frozenset({2, 4, 5})

Policy = Literal["always", "on-failure", "never"]


class History(Struct, frozen=True):
    """The times of recent exits, by who is to blame."""

    unblamed: tuple[float, ...] = ()
    blamed: tuple[float, ...] = ()


class Verdict(Struct, frozen=True):
    """What follows an exit: CRASHED (start again after `delay` seconds), GAVE_UP or FINISHED."""

    event: Event
    delay: float = 0.0
    count: int = 0  # exits in the window with the same blame


def judge(
    history: History,
    policy: Policy,
    reason: ExitReason,
    at: float,
    *,
    ready_for: float = -1.0,
    has_served: bool = True,
    jitter: float = 0.0,
) -> tuple[History, Verdict]:
    """Return the history with this exit in it, and what follows.

    The process had been ready for `ready_for` seconds, -1 if it never was; `has_served`: a process of the worker has
    been; `jitter` in [-1, 1].
    """
    if reason.permanent:
        return history, Verdict(Event.GAVE_UP)
    # Exit code 0 is only a success for a worker that had been ready and was not in the middle of a call.
    has_finished = reason.is_clean and ready_for >= 0 and not reason.blamed
    if policy == "never" or (policy == "on-failure" and has_finished):
        return history, Verdict(Event.FINISHED if reason.is_clean else Event.GAVE_UP)
    if policy == "on-failure" and not has_served and reason.cause != "spawn":
        # Code that has never worked fails again in the same way, until somebody changes something. A machine that had
        # no room for the process may have some soon.
        return history, Verdict(Event.GAVE_UP)
    if ready_for >= HEALTHY_AFTER:
        history = History()
    if reason.blamed:
        history = History(history.unblamed, (*_recent(history.blamed, at, EXIT_WINDOW), at))
        count = len(history.blamed)
        doublings = max(0, count - MAX_BLAMED)  # the first crashes that calls have caused cost the shortest delay
    else:
        history = History((*_recent(history.unblamed, at, EXIT_WINDOW), at), history.blamed)
        count = len(history.unblamed)
        doublings = count - 1
        if count > MAX_UNBLAMED:
            return history, Verdict(Event.GAVE_UP, count=count)
    delay = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(doublings, 16)) * (1 + JITTER * jitter)
    return history, Verdict(Event.CRASHED, delay, count)


def is_refusal(exit_code: int, *, is_standard: bool, was_ready: bool) -> bool:
    """Whether the exit code, which only a standard worker gives a meaning, says that starting again cannot help."""
    return is_standard and not was_ready and exit_code in REFUSALS


class LoopGuard:
    """Counts the reloads that each worker causes itself: changes made while one of its generations was starting."""

    def __init__(self) -> None:
        self._times: dict[str, tuple[float, ...]] = {}

    def allows(self, worker: str, now: float) -> bool:
        """Count a change that the worker's start has made; return whether to reload the worker once more."""
        recent = _recent(self._times.get(worker, ()), now, OWN_RELOAD_WINDOW)
        is_allowed = len(recent) < MAX_OWN_RELOADS
        self._times[worker] = (*recent, now) if is_allowed else recent
        return is_allowed


def _recent(times: tuple[float, ...], now: float, window: float) -> tuple[float, ...]:
    return tuple(time for time in times if now - time < window)
