"""When a job is tried again, and what the end of an attempt means for it. Pure: values in, values out.

Called by `settlement`, which writes the decision down, and by `dispatcher`, which sees the errors.
"""

from __future__ import annotations

from iii import InvocationError
from stdlib_workers.queue.model import Delivery, Kind, State, Verdict

BACKOFF_CAP_MS = 300_000
JITTER = 0.2
# Interruptions are nobody's fault, but a job that is there whenever the engine dies must end somewhere.
MAX_INTERRUPTIONS = 20
# What refuses a call before any handler has seen it. Pause before asking again, in milliseconds.
UNSTARTED = {"worker_unavailable": 1000, "overloaded": 100, "engine_stopping": 1000}
# Dead letters keep the story, not a memory dump.
MAX_TEXT = 16_384


def retry_delay_ms(backoff_ms: int, failures: int, noise: float) -> int:
    """Return base * 2^(failures - 1), at most 5 minutes, moved by up to 20 %; `noise` is in [0, 1]."""
    delay: int = min(BACKOFF_CAP_MS, backoff_ms * 2 ** min(failures - 1, 40))
    return round(delay * (1 + JITTER * (2 * noise - 1)))


def verdict_from(error: InvocationError, function_id: str) -> Verdict:
    """Say what a failed call means.

    An error with a stack trace was raised by the handler, whatever its code: codes pass through handlers that call
    others. Only an error without one, about this very function, is the engine's own.
    """
    body = _body(error)
    reason = error.details.get("reason")
    if error.stacktrace:
        return Verdict(Kind.FAILED, body)
    if error.code == "function_not_found" and function_id in error.message:
        return Verdict(Kind.MISSING, body)
    if error.code == "invocation_stopped" and error.details.get("started", True):
        is_death = reason == "worker_exited"
        return Verdict(Kind.FAILED, body, killed=True) if is_death else Verdict(Kind.INTERRUPTED, body)
    if error.code in UNSTARTED or error.code == "invocation_stopped":
        pause = error.details.get("retry_after_ms") or UNSTARTED.get(error.code, 0)
        return Verdict(Kind.RETURNED, body, delay_ms=int(pause))
    if error.code == "TIMEOUT" and error.details.get("started") is False:
        return Verdict(Kind.RETURNED, body)
    return Verdict(Kind.FAILED, body)


def is_end_of_engine(error: InvocationError) -> bool:
    """Whether the SDK says that the engine is gone: then nobody can say how the call ends.

    The kernel closes a dying engine's pipes a moment before it kills the processes at their other ends.
    """
    return error.code == "SHUTDOWN" and not error.stacktrace


def _body(error: InvocationError) -> dict[str, object]:
    body = {
        "code": error.code,
        "message": error.message[:MAX_TEXT],
        "stacktrace": (error.stacktrace or "")[-MAX_TEXT:] or None,
        "details": error.details or None,
    }
    return {key: value for key, value in body.items() if value is not None}


def blame(delivery: Delivery, verdict: Verdict, *, in_company: bool) -> Verdict:
    """Say what a death means for one of the jobs that ran: who died in company is a suspect, and pays nothing yet.

    A suspect runs beside no other suspect. If its worker dies again, it was this one.
    """
    if verdict.killed and in_company and not delivery.suspect:
        return Verdict(Kind.SUSPECTED, verdict.error)
    return verdict


def is_suspect(delivery: Delivery, verdict: Verdict) -> bool:
    """Whether the job is a suspect from now on: an attempt that lived to its end clears it."""
    if verdict.kind is Kind.SUSPECTED:
        return True
    return bool(delivery.suspect) and (verdict.killed or verdict.kind is not Kind.FAILED)


def next_state(delivery: Delivery, verdict: Verdict, noise: float) -> tuple[State | None, int]:
    """Return where a settled job goes, None for done, and after how many milliseconds it is due."""
    if verdict.kind is Kind.DONE:
        return None, 0
    if verdict.kind is Kind.MISSING:
        return State.HELD, 0
    if verdict.kind is Kind.RETURNED:
        return (State.DELAYED if verdict.delay_ms else State.READY), verdict.delay_ms
    if verdict.kind in (Kind.INTERRUPTED, Kind.SUSPECTED):
        return (State.DEAD if delivery.interrupted + 1 >= MAX_INTERRUPTIONS else State.READY), 0
    return _after_failure(delivery, verdict, noise)


def _after_failure(delivery: Delivery, verdict: Verdict, noise: float) -> tuple[State, int]:
    failures = delivery.spent + 1
    if failures >= delivery.queue.config.attempts:
        return State.DEAD, 0
    # A worker may die for reasons of its own: the first time the job is tried again at once.
    if verdict.killed and failures == 1:
        return State.READY, 0
    return State.DELAYED, retry_delay_ms(delivery.queue.config.backoff_ms, failures, noise)
