"""Why a call failed, in words a caller can act on: the nearest function, the wrong argument, where it is declared.

Adds to an error what only the engine knows; how it is shown is `failures`' matter. Called by `trigger` and
`trigger_help` after a failure.
"""

from __future__ import annotations

from typing import Any

from cli.client.connection import Connection
from cli.client.errors import invocation_error
from iii.errors import ErrorCode, InvocationError
from iii.suggestions import nearest_names


def explained(connection: Connection, function_id: str, body: dict[str, Any], info: dict[str, Any]) -> InvocationError:
    """Return the error for `body`, worded with what the engine knows (`info`: its description of the function)."""
    error = invocation_error(function_id, body)
    if error.code == ErrorCode.FUNCTION_NOT_FOUND and not info:
        error.message = not_found(function_id, error.details.get("suggestions") or _similar(connection, function_id))
    elif error.code == ErrorCode.INVALID_PAYLOAD:
        error.details.update(_place(info.get("source")))
    return error


def not_found(function_id: str, suggestions: list[str]) -> str:
    """Return the sentence for an unknown function, with up to three near ones."""
    said = f"function {function_id} not found."
    return f"{said} Did you mean {' or '.join(suggestions[:3])}?" if suggestions else said


def _place(source: Any) -> dict[str, Any]:
    """Return where the function is defined, as the details of an error say it."""
    return {"file": source.get("file"), "line": source.get("line")} if isinstance(source, dict) else {}


def _similar(connection: Connection, function_id: str) -> list[str]:
    answer = connection.exchange("engine::functions::list", {"include_internal": True}, 5000).get("result") or {}
    known = [str(row.get("function_id")) for row in answer.get("functions", [])]
    return nearest_names(function_id, known, count=3)
