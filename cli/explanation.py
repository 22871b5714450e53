"""Why a call failed, in words a caller can act on: the nearest function, the wrong argument, where it is declared.

Turns the body of an error into an InvocationError whose message is what the terminal shows. Called by `trigger` and
`connection` after a failure.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

from cli.connection import Connection
from iii.errors import ErrorCode, InvocationError

_TYPES = {
    "string": "a string",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


def invocation_error(function_id: str, body: dict[str, Any]) -> InvocationError:
    """Return the error for a body as the engine sent it."""
    code = str(body.get("code", ErrorCode.UNKNOWN))
    details = body.get("details") if isinstance(body.get("details"), dict) else {}
    message = f"{function_id}: {body.get('message', '')}  ({code})"
    trace = body.get("stacktrace")
    return InvocationError(code, message, function_id, trace if isinstance(trace, str) else None, details=details)


def explained(connection: Connection, function_id: str, body: dict[str, Any], info: dict[str, Any]) -> InvocationError:
    """Return the error for `body`, worded with what the engine knows (`info`: its description of the function)."""
    error = invocation_error(function_id, body)
    if error.code == ErrorCode.FUNCTION_NOT_FOUND and not info:
        error.message = not_found(function_id, error.details.get("suggestions") or _similar(connection, function_id))
    elif error.code == ErrorCode.INVALID_PAYLOAD:
        refused = refusal(error.details) or str(body.get("message", ""))
        error.message = f"{function_id}: {refused}{_place(error, info.get('source'))}"
    return error


def not_found(function_id: str, suggestions: list[str]) -> str:
    """Return the sentence for an unknown function, with up to three near ones."""
    said = f"function {function_id} not found."
    return f"{said} Did you mean {' or '.join(suggestions[:3])}?" if suggestions else said


def refusal(details: dict[str, Any]) -> str:
    """Return `a must be a number, got "two"` from the details of a refused payload, empty without them."""
    if "expected" not in details or "got" not in details:
        return ""
    path = str(details.get("path", "")).removeprefix("$").strip("./").replace("/", ".") or "the payload"
    expected = str(details["expected"])
    got = json.dumps(details["got"], ensure_ascii=False)
    return f"{path} must be {_TYPES.get(expected, expected)}, got {got if len(got) <= 80 else got[:77] + '...'}"


def _place(error: InvocationError, source: Any) -> str:
    if not isinstance(source, dict) or "file" not in source:
        return ""
    error.details.update(file=source["file"], line=source.get("line", 0))
    return f"  ({source['file']}:{source.get('line', 0)})"


def _similar(connection: Connection, function_id: str) -> list[str]:
    answer = connection.exchange("engine::functions::list", {"include_internal": True}, 5000).get("result") or {}
    known = [str(row.get("function_id")) for row in answer.get("functions", [])]
    return difflib.get_close_matches(function_id, known, n=3, cutoff=0.6)
