"""What each failure looks like, as text and as JSON, and its exit code."""

from __future__ import annotations

import json

import pytest

from cli.client.errors import UsageError, exit_code, invocation_error, not_running, report
from cli.main import is_interrupt
from iii.errors import AlreadyRunning, IIIError, InvocationError, ProjectError, RegistrationRejectedError

CODES = [
    (InvocationError("boom", "x"), 1),
    (RegistrationRejectedError("CONFLICT", "default", "w", "o"), 1),
    (UsageError("x"), 2),
    (ProjectError("x"), 2),
    (not_running(), 3),
    (AlreadyRunning("x"), 4),
    (InvocationError("TIMEOUT", "x"), 124),
]


@pytest.mark.parametrize(("error", "code"), CODES)
def test_each_failure_has_its_exit_code(error: IIIError, code: int) -> None:
    assert exit_code(error) == code


def test_json_names_code_message_hint_file_and_line(capsys: pytest.CaptureFixture[str]) -> None:
    report(ProjectError("wrong", file="iii.toml", line=3, column=1, hint="right it"), as_json=True)
    body = {"code": "config_error", "message": "wrong", "hint": "right it", "file": "iii.toml", "line": 3}
    assert json.loads(capsys.readouterr().err) == {"error": body}


def test_the_place_of_a_failed_worker_is_shown_from_the_details(capsys: pytest.CaptureFixture[str]) -> None:
    details = {"file": "workers/math.py", "line": 7, "stderr": "a\nb\x1b\n"}
    report(InvocationError("worker_unavailable", "math is down", details=details))
    text = "error: math is down  (worker_unavailable)  (workers/math.py:7)\n  | a\n  | b\\x1b\n"
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("message", ["math::bad returned a text", "math::bad: returned a text"])
def test_the_function_is_named_once(message: str) -> None:
    assert invocation_error("math::bad", {"code": "c", "message": message}).message == message
    assert invocation_error("math::bad", {"code": "c", "message": "no"}).message == "math::bad: no"


def test_control_characters_of_a_message_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    report(UsageError("no \x1b[2J", "two\x07"))
    assert capsys.readouterr().err == "error: no \\x1b[2J\ntwo\\x07\n"


def test_a_mistake_of_ours_is_no_message_for_the_user() -> None:
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError())


class Interrupting:
    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_while_a_class_is_made_is_one_whatever_is_wrapped_around_it() -> None:
    with pytest.raises((RuntimeError, KeyboardInterrupt)) as raised:
        type("Interrupted", (), {"field": Interrupting()})
    assert is_interrupt(raised.value)
    assert not is_interrupt(RuntimeError("of its own"))
