"""Why a call failed, in words a caller can act on: the nearest function, the wrong argument, where it is declared.

Adds to an error what only the engine knows; `errors` shows it.
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
        suggestions = error.details.get("suggestions")
        if not suggestions:
            listed = connection.request("engine::functions::list", {"include_internal": True}, 5000).get("result") or {}
            known = [str(row.get("function_id")) for row in listed.get("functions", [])]
            suggestions = nearest_names(function_id, known, count=3)
        hint = f" Did you mean {' or '.join(suggestions[:3])}?" if suggestions else ""
        error.message = f"function {function_id} not found.{hint}"
    elif error.code == ErrorCode.INVALID_PAYLOAD and isinstance(source := info.get("source"), dict):
        error.details.update(file=source.get("file"), line=source.get("line"))
    return error
