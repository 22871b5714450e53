"""What a failure looks like in the terminal and which exit code it has.

Imported only when something has failed, or by commands that are not on the short path.
"""

from __future__ import annotations

import json
import os
from typing import Any

from cli.client.discovery import running_engine
from cli.text.output import shown, write_error
from iii.errors import AlreadyRunning, EngineNotRunning, ErrorCode, IIIError, InvocationError, ProjectError
from iii.failure_text import named
from iii.version import VERSION

FAILED = 1
USAGE = 2
NO_ENGINE = 3
ALREADY_RUNNING = 4
TIMED_OUT = 124
MAX_SHOWN = 30  # mistakes of one file, after the first


class UsageError(IIIError):
    """The command was written wrong (exit code 2). `hint` says how to write it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def report(error: Exception, *, as_json: bool = False) -> int:
    """Write `error` to stderr and return the exit code. An error that is a bug of ours is raised again."""
    if not isinstance(error, IIIError):
        raise error
    others = getattr(error, "others", ())
    if as_json:
        bodies = {"error": _body(error)} | ({"others": [_body(other) for other in others]} if others else {})
        write_error(json.dumps(bodies))
    else:
        write_error("\n".join(map(_text, (error, *others[:MAX_SHOWN]))))
        if len(others) > MAX_SHOWN:
            write_error(f"and {len(others) - MAX_SHOWN} more")
    if isinstance(error, InvocationError) and not as_json:
        note_other_version()
    return exit_code(error)


def note_other_version() -> None:
    """Write a note to stderr if the running engine has another version: that explains what then goes wrong."""
    version = str(running_engine(os.getcwd()).get("version", VERSION))
    if version != VERSION:
        text = f"note: the engine is iii {version} and this is iii {VERSION}; stop it and start it anew"
        write_error(shown(text))


def exit_code(error: IIIError) -> int:
    if isinstance(error, InvocationError) and error.code == ErrorCode.TIMEOUT:
        return TIMED_OUT
    return next((code for type_, (_, code) in _CODES.items() if isinstance(error, type_)), FAILED)


def not_running(message: str = "no engine is running") -> EngineNotRunning:
    return EngineNotRunning(f"{message}; start one with `iii dev`")


def invocation_error(function_id: str, body: dict[str, Any]) -> InvocationError:
    """Return the error for a body as the engine sent it."""
    code = str(body.get("code", ErrorCode.UNKNOWN))
    details = body.get("details") if isinstance(body.get("details"), dict) else {}
    trace = body.get("stacktrace")
    message = named(function_id, str(body.get("message", "")))
    return InvocationError(code, message, function_id, trace if isinstance(trace, str) else None, details=details)


def _text(error: IIIError) -> str:
    if isinstance(error, ProjectError):
        return f"error: {shown(str(error))}"
    if isinstance(error, InvocationError):
        # The engine's own refusals are whole sentences; a handler's error may be any text, so its code is shown too.
        code = "" if error.code in _SENTENCES else f"  ({error.code})"
        file, line = error.details.get("file"), error.details.get("line")
        place = f"  ({file}:{line})" if file and line else ""
        trail = error.stacktrace.rstrip().split("\n") if error.stacktrace else []
        if stderr := error.details.get("stderr"):
            last = stderr if isinstance(stderr, list) else str(stderr).rstrip().split("\n")
            trail += [f"  | {text}" for text in last]
        return "\n".join([f"error: {shown(error.message + code + place)}", *map(shown, trail)])
    return "\n".join(shown(line) for line in f"error: {error}".split("\n"))


def _body(error: IIIError) -> dict[str, Any]:
    code = getattr(error, "code", None) or _CODES.get(type(error), (ErrorCode.UNKNOWN, FAILED))[0]
    details = getattr(error, "details", {})
    body = {
        "code": code,
        "message": getattr(error, "message", str(error)),
        "hint": getattr(error, "hint", "") or None,
        "file": getattr(error, "file", "") or details.get("file"),
        "line": getattr(error, "line", 0) or details.get("line"),
    }
    return {name: value for name, value in body.items() if value is not None}


_SENTENCES = (ErrorCode.INVALID_PAYLOAD, ErrorCode.FUNCTION_NOT_FOUND, ErrorCode.TIMEOUT)
# class -> (code in JSON, exit code)
_CODES: dict[type[IIIError], tuple[str, int]] = {
    UsageError: ("usage", USAGE),
    ProjectError: ("config_error", USAGE),
    EngineNotRunning: ("engine_not_running", NO_ENGINE),
    AlreadyRunning: ("already_running", ALREADY_RUNNING),
}
