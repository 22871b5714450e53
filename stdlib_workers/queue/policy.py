"""When a job is tried again, and what the end of an attempt means for it. Pure: values in, values out.

Neither writes a decision down (`delivery`) nor makes the calls whose errors it reads (`dispatcher`).
"""

from __future__ import annotations

from iii import InvocationError
from stdlib_workers.queue.model import Delivery, Outcome, State, Verdict

BACKOFF_CAP_MS = 300_000
JITTER = 0.2
# An interruption is not the job's fault, but a job that is running whenever the engine dies must end somewhere.
MAX_INTERRUPTIONS = 20
# Codes that refuse a call before any handler has seen it -> milliseconds until the next attempt.
UNSTARTED = {"worker_unavailable": 1000, "overloaded": 100, "engine_stopping": 1000}
# Codes of a result that could not be kept: no JSON, too large, not what its schema says.
UNKEPT = ("result_not_serializable", "payload_too_large", "invalid_result")
# Dead letters keep the error, not a memory dump.
MAX_TEXT = 16_384


def retry_delay_ms(backoff_ms: int, failures: int, noise: float) -> int:
    """Return base * 2^(failures - 1), at most 5 minutes, moved by up to 20 %; `noise` is in [0, 1]."""
    delay: int = min(BACKOFF_CAP_MS, backoff_ms * 2 ** min(failures - 1, 40))
    return round(delay * (1 + JITTER * (2 * noise - 1)))


def expected_delay_ms(delivery: Delivery) -> int | None:
    """Return when about the job is tried again if this attempt fails, None if this attempt is the last."""
    failures = delivery.spent + 1
    config = delivery.queue.config
    return None if failures >= config.attempts else retry_delay_ms(config.backoff_ms, failures, 0.5)


def verdict_from(error: InvocationError, function_id: str) -> Verdict:
    """Say what a failed call of `function_id` means.

    An error with a stack trace was raised by the handler, whatever its code: codes pass through handlers that call
    other functions. Only an error without a stack trace, about this very function, is the engine's own.
    """
    fields = {
        "code": error.code,
        "message": error.message[:MAX_TEXT],
        "stacktrace": (error.stacktrace or "")[-MAX_TEXT:] or None,
        "details": error.details or None,
    }
    body = {key: value for key, value in fields.items() if value is not None}
    if error.stacktrace:
        return Verdict(Outcome.FAILED, body)
    if has_returned(error, function_id):
        return Verdict(Outcome.DONE, body)
    if error.code == "function_not_found" and function_id in error.message:
        return Verdict(Outcome.MISSING, body)
    if error.code == "invocation_stopped" and error.details.get("started", True):
        has_crashed = error.details.get("reason") == "worker_exited"
        return Verdict(Outcome.FAILED, body, killed=True) if has_crashed else Verdict(Outcome.INTERRUPTED, body)
    if error.code in UNSTARTED or error.code == "invocation_stopped":
        delay = error.details.get("retry_after_ms") or UNSTARTED.get(error.code, 0)
        return Verdict(Outcome.RETURNED, body, delay_ms=int(delay))
    is_unstarted = error.code == "TIMEOUT" and error.details.get("started") is False
    return Verdict(Outcome.RETURNED if is_unstarted else Outcome.FAILED, body)


def timed_out(verdict: Verdict, function_id: str, timeout_ms: int) -> Verdict:
    """Say what the end of an attempt means that has run into its timeout.

    A handler that returned all the same has done the work, and one that raised an error of its own has failed by it.
    Cancelled or stopped with its process it has timed out: both were asked for because of the timeout.
    """
    if verdict.error.get("code") not in ("cancelled", "invocation_stopped"):
        return verdict
    text = f"{function_id}: invocation timed out after {timeout_ms}ms"
    return Verdict(Outcome.FAILED, {"code": "TIMEOUT", "message": text, "details": {"started": True}})


def has_returned(error: InvocationError, function_id: str) -> bool:
    """Whether the handler itself has returned, and only its result could not be kept: then the job is done.

    No caller waits for the result of a job, and a job that has done its work must not do it again.
    """
    return error.code in UNKEPT and error.function_id == function_id and error.details.get("returned") is True


def is_end_of_engine(error: InvocationError) -> bool:
    """Whether the SDK says that the engine is gone: then it is unknown how the call ends.

    The kernel closes a dying engine's pipes a moment before it kills the processes at their other ends.
    """
    return error.code == "SHUTDOWN" and not error.stacktrace


def blame(delivery: Delivery, verdict: Verdict, *, is_shared: bool) -> Verdict:
    """Say what its worker's crash means for a job. A crash that is shared with other jobs spends no attempt yet.

    Each of those jobs is a possible poison message from then on, and runs beside no other one. If its worker crashes
    again, this job was the cause, and the crash counts as its failure.
    """
    if verdict.killed and is_shared and not delivery.possible_poison:
        return Verdict(Outcome.SHARED_CRASH, verdict.error)
    return verdict


def is_possible_poison(delivery: Delivery, verdict: Verdict) -> bool:
    """Whether the job is a possible poison message from now on: an attempt that its worker survived clears it."""
    if verdict.outcome is Outcome.SHARED_CRASH:
        return True
    return bool(delivery.possible_poison) and (verdict.killed or verdict.outcome is not Outcome.FAILED)


def next_state(delivery: Delivery, verdict: Verdict, noise: float) -> tuple[State | None, int]:
    """Return where a settled job goes, None for done, and after how many milliseconds it is due."""
    if verdict.outcome is Outcome.DONE:
        return None, 0
    if verdict.outcome is Outcome.MISSING:
        return State.HELD, 0
    if verdict.outcome is Outcome.RETURNED:
        return (State.DELAYED if verdict.delay_ms else State.READY), verdict.delay_ms
    if verdict.outcome in (Outcome.INTERRUPTED, Outcome.SHARED_CRASH):
        return (State.DEAD if delivery.interrupted + 1 >= MAX_INTERRUPTIONS else State.READY), 0
    failures = delivery.spent + 1
    if failures >= delivery.queue.config.attempts:
        return State.DEAD, 0
    # A worker may crash for reasons of its own: after the first crash the job is tried again at once.
    at_once = verdict.killed and failures == 1
    delay = 0 if at_once else retry_delay_ms(delivery.queue.config.backoff_ms, failures, noise)
    return (State.READY if at_once else State.DELAYED), delay
