"""How an attempt at a function has ended: what the error of a call means for the work that made it. Pure.

Shared by the standard workers that try again. They write the verdict down and decide when the next attempt is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from iii import InvocationError

BACKOFF_CAP_MS = 300_000
JITTER = 0.2
# Codes that refuse a call before any handler has seen it -> milliseconds until the next attempt.
UNSTARTED = {"worker_unavailable": 1000, "overloaded": 100, "engine_stopping": 1000}
# Codes of a result that could not be kept: no JSON, too large, not what its schema says.
UNKEPT = ("result_not_serializable", "payload_too_large", "invalid_result")
# Dead letters keep the error, not a memory dump.
MAX_TEXT = 16_384


class Outcome(Enum):
    """How an attempt ended."""

    DONE = "done"
    FAILED = "failed"  # spends an attempt
    RETURNED = "returned"  # never started: the attempt number is given back
    INTERRUPTED = "interrupted"  # started, and stopped from the engine's side: spends nothing, counts as a delivery
    SHARED_CRASH = "shared crash"  # as INTERRUPTED: its worker crashed, and other jobs that ran may be the cause
    SHARED_FAILURE = "shared failure"  # of a call for several jobs: any of them may be the cause; spends nothing
    MISSING = "missing"  # no worker has registered the function: wait for it


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt's end means. `error` is the error body's JSON fields, `result` what the function returned."""

    outcome: Outcome
    error: dict[str, Any] = field(default_factory=dict)
    killed: bool = False  # the worker crashed during it
    delay_ms: int = 0
    result: Any = None


DONE = Verdict(Outcome.DONE)


def retry_delay_ms(backoff_ms: int, failures: int, noise: float) -> int:
    """Return base * 2^(failures - 1), at most 5 minutes, moved by up to 20 %; `noise` is in [0, 1]."""
    delay: int = min(BACKOFF_CAP_MS, backoff_ms * 2 ** min(failures - 1, 40))
    return round(delay * (1 + JITTER * (2 * noise - 1)))


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
