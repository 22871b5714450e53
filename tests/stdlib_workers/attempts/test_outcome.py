"""What the end of an attempt means, and how long a retry waits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import InvocationError
from stdlib_workers.attempts import BACKOFF_CAP_MS, Outcome, is_end_of_engine, retry_delay_ms, verdict_from

FUNCTION = "mail::send"


@given(base=st.integers(1, 10_000), failures=st.integers(1, 10_000), noise=st.floats(0, 1))
def test_q09_a_retry_waits_for_the_doubled_base_give_or_take_a_fifth(base: int, failures: int, noise: float) -> None:
    exact = min(base * 2 ** (failures - 1), BACKOFF_CAP_MS)
    assert exact * 0.8 - 1 <= retry_delay_ms(base, failures, noise) <= exact * 1.2 + 1


def error(code: str, message: str = FUNCTION, stacktrace: str | None = None, **details: Any) -> InvocationError:
    return InvocationError(code, message, FUNCTION, stacktrace, details=details)


@pytest.mark.parametrize(
    ("given_error", "outcome"),
    [
        (error("invocation_failed", "boom", "Traceback"), Outcome.FAILED),
        (error("function_not_found", f"Function {FUNCTION} not found"), Outcome.MISSING),
        (error("function_not_found", f"Function {FUNCTION} not found", "Traceback"), Outcome.FAILED),
        (error("function_not_found", "Function other::one not found"), Outcome.FAILED),
        (error("invocation_stopped", reason="worker_exited", started=True), Outcome.FAILED),
        (error("invocation_stopped", reason="reload", started=True), Outcome.INTERRUPTED),
        (error("invocation_stopped", "the connection to the engine was lost"), Outcome.INTERRUPTED),
        (error("invocation_stopped", reason="worker_exited", started=False), Outcome.RETURNED),
        (error("worker_unavailable"), Outcome.RETURNED),
        (error("worker_unavailable", stacktrace="Traceback"), Outcome.FAILED),
        (error("overloaded", retry_after_ms=250), Outcome.RETURNED),
        (error("engine_stopping"), Outcome.RETURNED),
        (error("TIMEOUT", started=False), Outcome.RETURNED),
        (error("TIMEOUT", started=True), Outcome.FAILED),
        (error("invalid_payload"), Outcome.FAILED),
        (error("result_not_serializable", returned=True), Outcome.DONE),
        (error("payload_too_large", returned=True), Outcome.DONE),
        (error("invalid_result", returned=True), Outcome.DONE),
        (error("payload_too_large"), Outcome.FAILED),
        (error("result_not_serializable", stacktrace="Traceback", returned=True), Outcome.FAILED),
        (error("sold_out", returned=True), Outcome.FAILED),
        (InvocationError("invalid_result", "m", "other::one", details={"returned": True}), Outcome.FAILED),
    ],
)
def test_only_what_started_spends_an_attempt(given_error: InvocationError, outcome: Outcome) -> None:
    assert verdict_from(given_error, FUNCTION).outcome is outcome


def test_a_dead_worker_is_no_reason_to_wait_and_a_busy_one_is() -> None:
    assert verdict_from(error("invocation_stopped", reason="worker_exited"), FUNCTION).killed
    assert verdict_from(error("overloaded", retry_after_ms=250), FUNCTION).delay_ms == 250


def test_only_the_sdk_itself_says_that_the_engine_is_gone() -> None:
    assert is_end_of_engine(error("SHUTDOWN"))
    assert not is_end_of_engine(error("SHUTDOWN", stacktrace="Traceback"))
    assert not is_end_of_engine(error("invocation_stopped"))


def test_a_story_is_bounded_and_keeps_the_end_of_the_traceback() -> None:
    verdict = verdict_from(error("invocation_failed", "m" * 100_000, "x" * 100_000 + "ValueError: here"), FUNCTION)
    assert len(str(verdict.error)) < 40_000
    assert verdict.error["stacktrace"].endswith("ValueError: here")
