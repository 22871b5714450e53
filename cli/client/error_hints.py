"""Why a call failed, in words a caller can act on: the missing worker, the nearest function, the wrong argument.

Adds to an error what only the engine knows; `errors` shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.client.errors import invocation_error
from cli.text.output import count
from iii.errors import ErrorCode, InvocationError
from iii.suggestions import nearest_names, standard_worker_of

# Makes a call and returns its whole answer: `Connection.request`.
Request = Callable[..., dict[str, Any]]
TIMEOUT_MS = 5000
_PUBLIC_PREFIX = "iii-"  # of standard workers' names elsewhere


def explained(
    request: Request, function_id: str, body: dict[str, Any], info: dict[str, Any] | None = None
) -> InvocationError:
    """Return the error for `body`, worded with what the engine knows (`info`: its description of the function).

    `request` asks the engine.
    """
    error = invocation_error(function_id, body)
    if (
        error.code == ErrorCode.FUNCTION_NOT_FOUND
        and not info
        and not error.stacktrace
        and function_id in error.message
    ):
        error.message = _not_found(request, function_id, error)
    elif error.code == ErrorCode.INVALID_PAYLOAD and info and isinstance(source := info.get("source"), dict):
        error.details.update(file=source.get("file"), line=source.get("line"))
    return error


def _not_found(request: Request, function_id: str, error: InvocationError) -> str:
    listed = request("engine::workers::list", {}, TIMEOUT_MS).get("result") or {}
    workers = {str(row.get("name")): row for row in listed.get("workers", [])}
    failed = {name: row for name, row in workers.items() if row.get("state") == "failed"}
    text = f"function {function_id} not found"
    standard = standard_worker_of(function_id)
    if standard is not None:
        names = [name for name in workers if name.removeprefix(_PUBLIC_PREFIX).replace("-", "_") == standard]
        if not names:
            return f"{text}: it is the {standard} worker's; add it with `iii add {standard}`"
        owner = next((name for name in names if name in failed), None)
    else:
        owner = next((name for name in failed if function_id.startswith(f"{name}::")), None)
    if owner is not None:
        return f"{text}: the worker {owner} has failed: {_words(failed[owner])}"
    known = request("engine::functions::list", {"include_internal": True}, TIMEOUT_MS).get("result") or {}
    rows = known.get("functions", [])
    elsewhere = sorted({str(row.get("namespace")) for row in rows if row.get("function_id") == function_id})
    if elsewhere:
        places = f"{count(len(elsewhere), 'other namespace')}: {', '.join(elsewhere)}"
        return f"{text} in this namespace, but in {places}; choose with `--namespace`"
    suggestions = error.details.get("suggestions") or nearest_names(
        function_id, [str(row.get("function_id")) for row in rows], count=3
    )
    if suggestions:
        text += f". Did you mean {' or '.join(suggestions[:3])}?"
    elif failed:
        text += f"; what has failed may have it: {', '.join(failed)} (see `iii ps`)"
    return text


def _words(row: dict[str, Any]) -> str:
    error = row.get("last_error")
    if isinstance(error, dict):
        return f"{error.get('text')} ({error.get('file')}:{error.get('line')})"
    return str(row.get("last_exit") or "see `iii logs`")
