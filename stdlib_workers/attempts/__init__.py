"""Attempts of standard workers at functions: outcomes, and the pauses between attempts."""

from stdlib_workers.attempts.outcome import (
    BACKOFF_CAP_MS,
    DONE,
    Outcome,
    Verdict,
    is_end_of_engine,
    retry_delay_ms,
    timed_out,
    verdict_from,
)

__all__ = [
    "BACKOFF_CAP_MS",
    "DONE",
    "Outcome",
    "Verdict",
    "is_end_of_engine",
    "retry_delay_ms",
    "timed_out",
    "verdict_from",
]
