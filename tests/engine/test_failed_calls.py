"""From a failed call to what is told of it: who made it, what for, where it failed; and when nothing is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from iii.engine.failed_calls import MAX_READ, FailedCalls
from iii.engine.routing.events import CallFailed
from iii.engine.supervision import reports
from iii.engine.supervision.run import Frame, Run, SourceError
from iii.protocol.messages import ErrorBody
from tests.support.routing import Net

ROOT = Path("/project")
STACK = """Traceback (most recent call last):
  File "/project/mail.py", line 12, in send
    check(payload)
  File "/project/mail.py", line 7, in check
    raise ValueError("password=hunter22")
ValueError: no such address
"""
BROKEN = {
    "code": "invocation_failed",
    "message": "no such address",
    "stacktrace": STACK,
    "details": {"exception": "ValueError"},
}
JOB = {"id": "j1", "queue": "mail", "attempt": 2, "failures": 1, "max_attempts": 5, "retry_in_ms": 4000}


class Scene:
    """A router with a provider of triggers called `cron`, and a worker `mail` with the function `mail::send`."""

    def __init__(self) -> None:
        self.net = Net()
        self.provider = self.net.serving("cron")
        self.net.send(self.provider, "registertriggertype", id="cron", description="")
        self.worker = self.net.serving("mail", "mail::send", generation=3)
        self.now = 0.0
        self.failed = FailedCalls(
            self.net.router.bindings,
            standard_of={"http": "http", "cron": "cron"}.get,
            redact=lambda text: text.replace("hunter22", "[REDACTED]"),
            clock=lambda: self.now,
        )

    def report(self, error: Any = BROKEN, *, is_void: bool = False, **fields: Any) -> reports.CallFailed | None:
        """Return what is told of a call by the provider (or a void one) that failed."""
        call = {"type": "invokefunction", "invocation_id": "1", "function_id": "mail::send", "data": None, **fields}
        body = error if isinstance(error, ErrorBody) else Raw(json.dumps(error).encode())
        line = json.dumps(call).encode()
        event = CallFailed("mail::send", "default", self.provider, self.worker, line, body, is_void)
        return self.failed.report_of(event, ROOT)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_failure_has_the_lines_of_the_project_the_cause_and_the_trace(scene: Scene) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    caller = {"invocation_id": "0", "function_id": "shop::order"}
    report = scene.report(is_void=True, traceparent=f"00-{trace}-00f067aa0ba902b7-01", caller=caller)
    line = 'raise ValueError("password=[REDACTED]")'
    frames = (Frame("mail.py", 12, "send", "check(payload)"), Frame("mail.py", 7, "check", line))
    error = SourceError("mail.py", 7, "ValueError: no such address", line, frames)
    run = Run("mail", 1, 3)
    assert report == reports.CallFailed(run, "mail::send", "void", "void call of shop::order (cron)", error, trace)


@pytest.mark.parametrize(
    ("job", "words", "is_final"),
    [
        (JOB, "job j1 of queue mail, attempt 2 of 5, next in 4 s", False),
        (JOB | {"failures": 4}, "job j1 of queue mail, attempt 2 of 5, now a dead letter", True),
        ({"id": "j1", "queue": "mail"}, "job j1 of queue mail, attempt None of None", False),
    ],
)
def test_a_job_says_which_attempt_it_was_and_what_comes_next(
    scene: Scene, job: dict[str, Any], words: str, *, is_final: bool
) -> None:
    report = scene.report(metadata={"iii.job": job})
    assert report is not None
    assert (report.cause, report.invoked_by, report.is_final) == ("job", words, is_final)


def test_a_call_that_fits_a_binding_was_made_for_it(scene: Scene) -> None:
    scene.net.bind(scene.worker, function="mail::send", config={"expression": "* * * * *", "nothing": None})
    report = scene.report()
    assert report is not None
    assert (report.cause, report.invoked_by) == ("cron", "cron trigger (expression * * * * *)")


def test_a_condition_is_named_as_one(scene: Scene) -> None:
    scene.net.bind(scene.worker, function="mail::other", config={"condition_function_id": "mail::send"})
    report = scene.report()
    assert report is not None
    assert report.invoked_by == "condition of cron trigger (condition_function_id mail::send)"


def test_a_plain_call_of_a_worker_that_fires_triggers_is_its_own(scene: Scene) -> None:
    assert scene.report() is None


def test_what_a_client_of_http_did_wrong_is_no_failure(scene: Scene) -> None:
    scene.net.send(scene.provider, "registertriggertype", id="http", description="")
    scene.net.bind(scene.worker, function="mail::send", type="http")
    assert scene.report({"code": "invalid_payload", "message": "a must be a number"}) is None
    assert scene.report() is not None
    refusal = {"code": "not_found", "message": "no such order", "details": {"http_status": 404}}
    assert scene.report(refusal) is None
    assert scene.report({**refusal, "details": {"http_status": 503}}) is not None
    assert scene.report({**refusal, "details": {"http_status": "404"}}) is not None
    assert scene.report({**refusal, "stacktrace": STACK}) is not None
    assert scene.report(refusal, metadata={"iii.job": JOB}) is not None


def test_an_error_without_stack_trace_or_class_is_told_by_its_code(scene: Scene) -> None:
    report = scene.report(ErrorBody("TIMEOUT", "mail::send: timed out"), is_void=True)
    assert report is not None
    assert report.error == SourceError("", 0, "TIMEOUT: timed out")
    assert scene.report({"nothing": 1}, is_void=True) is not None
    assert scene.report(None, is_void=True) is None


def test_a_flood_of_different_errors_does_not_read_each_stack_trace(scene: Scene) -> None:
    told = [scene.report({**BROKEN, "message": str(number)}, is_void=True) for number in range(MAX_READ + 5)]
    places = [report.error.line for report in told if report is not None]
    assert places == [7] * MAX_READ + [0] * 5
    scene.now = 1.0
    report = scene.report({**BROKEN, "message": "later"}, is_void=True)
    assert report is not None
    assert report.error.line == 7


def test_a_hook_of_the_engine_that_breaks_is_a_failure_one_that_refuses_is_not(scene: Scene) -> None:
    scene.provider = scene.net.peer("gate", kind="engine")
    report = scene.report()
    assert report is not None
    assert (report.cause, report.invoked_by) == ("hook", "hook of the engine")
    assert scene.report({"code": "FORBIDDEN", "message": "not you"}) is None


def test_a_job_that_has_returned_what_cannot_be_kept_is_told_as_done() -> None:
    error = {"code": "result_not_serializable", "message": "$.a: object is not JSON", "details": {"returned": True}}
    told = Scene().report(error, metadata={"iii.job": JOB})
    assert told is not None
    assert (told.invoked_by, told.is_final) == ("job j1 of queue mail, done: it is not run again", True)
