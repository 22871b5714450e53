"""When a job is tried again, and what the end of an attempt means for it. Pure: values in, values out.

Neither writes a decision down (`delivery`) nor makes the calls (`dispatcher`). What a call's error means: `attempts`.
"""

from __future__ import annotations

from dataclasses import replace

from stdlib_workers.attempts import Outcome, Verdict, retry_delay_ms
from stdlib_workers.queue.model import Delivery, State

# An interruption is not the job's fault, but a job that is running whenever the engine dies must end somewhere.
MAX_INTERRUPTIONS = 20


def expected_delay_ms(delivery: Delivery) -> int | None:
    """Return when about the job is tried again if this attempt fails, None if this attempt is the last."""
    failures = delivery.spent + 1
    config = delivery.queue.config
    return None if failures >= config.attempts else retry_delay_ms(config.backoff_ms, failures, 0.5)


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
    if verdict.outcome in (Outcome.DONE, Outcome.MISSING):
        return (None if verdict.outcome is Outcome.DONE else State.HELD), 0
    if verdict.outcome is Outcome.RETURNED:
        return (State.DELAYED if verdict.delay_ms else State.READY), verdict.delay_ms
    if verdict.outcome in (Outcome.INTERRUPTED, Outcome.SHARED_CRASH):
        return (State.DEAD if delivery.interrupted + 1 >= MAX_INTERRUPTIONS else State.READY), 0
    failures = delivery.spent + 1
    if verdict.outcome is Outcome.SHARED_FAILURE:
        return State.DELAYED, retry_delay_ms(delivery.queue.config.backoff_ms, failures, noise)
    if failures >= delivery.queue.config.attempts:
        return State.DEAD, 0
    # A worker may crash for reasons of its own: after the first crash the job is tried again at once.
    at_once = verdict.killed and failures == 1
    delay = 0 if at_once else retry_delay_ms(delivery.queue.config.backoff_ms, failures, noise)
    return (State.READY if at_once else State.DELAYED), delay


def verdicts_of_batch(delivery: Delivery, verdict: Verdict) -> list[tuple[Delivery, Verdict]]:
    """Say what the end of a call means for each job that it was made for.

    A function returns `{"failed": [index]}` for jobs that have failed in a batch where others have not. If none or all
    have, any of them may be the cause: each is tried alone, and pays from then on.
    """
    jobs = delivery.batch or (delivery,)
    if verdict.outcome is Outcome.DONE and delivery.batch:
        return [*zip(jobs, _verdicts_in(delivery, verdict), strict=True)]
    if verdict.outcome is Outcome.FAILED and len(jobs) > 1:
        verdict = blame(delivery, verdict, is_shared=True)
        if verdict.outcome is Outcome.FAILED:
            verdict = replace(verdict, outcome=Outcome.SHARED_FAILURE, killed=False)
    return [(job, verdict) for job in jobs]


def _verdicts_in(delivery: Delivery, verdict: Verdict) -> list[Verdict]:
    size = len(delivery.batch)
    failed = verdict.result.get("failed") if isinstance(verdict.result, dict) else None
    if failed is None:
        return [verdict] * size
    what = f"{delivery.function_id} has returned"
    is_list = isinstance(failed, list) and all(type(index) is int and 0 <= index < size for index in failed)
    outcome = Outcome.SHARED_FAILURE if size > 1 and (not is_list or len(set(failed)) == size) else Outcome.FAILED
    if not is_list:
        text = f"{what} {str(failed)[:200]!r} as `failed`; it must be a list of indexes from 0 to {size - 1}"
        return [Verdict(outcome, {"code": "invalid_result", "message": text})] * size
    errors = [{"code": "batch_item_failed", "message": f"{what} index {index} in `failed`"} for index in range(size)]
    return [Verdict(outcome, error) if index in failed else verdict for index, error in enumerate(errors)]
