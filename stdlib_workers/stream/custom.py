"""Custom streams: a project's own functions `stream::get(NAME)` and so on stand in for the storage.

A call finds out whether a stream has such a function. That it has none is remembered until the engine reports that the
functions of the project have changed.
"""

from __future__ import annotations

from typing import Any

from iii import InvocationError
from stdlib_workers.events import Caller

# Result of `call` for a stream that has no such function.
ABSENT: Any = object()
# Functions that are remembered as absent; with more, another call costs less than the memory.
MAX_ABSENT = 10_000


class CustomStreams:
    """Calls the functions of custom streams."""

    def __init__(self, worker: Caller) -> None:
        self._worker = worker
        self._absent: set[str] = set()

    def forget(self, _: Any = None) -> None:
        """Forget which functions are absent: the functions of the project have changed."""
        self._absent.clear()

    async def call(self, operation: str, stream: str, payload: Any) -> Any:
        """Return the result of `stream::OPERATION(STREAM)`, ABSENT when there is no such function."""
        function_id = f"stream::{operation}({stream})"
        if function_id in self._absent:
            return ABSENT
        try:
            return await self._worker.trigger_async({"function_id": function_id, "payload": payload})
        except InvocationError as error:
            if error.code != "function_not_found" or function_id not in error.message:
                raise
        if len(self._absent) >= MAX_ABSENT:
            self._absent.clear()
        self._absent.add(function_id)
        return ABSENT


def fields_of(result: Any, operation: str, *required: str) -> dict[str, Any]:
    """Return the result of a custom `set`, `update` or `delete`. InvocationError `JSON_ERROR` for what does not fit."""
    if result is None:
        code = f"STREAM_{operation.upper()}_ERROR"
        raise InvocationError(code, f"the custom stream's {operation} returned nothing")
    if not isinstance(result, dict) or any(name not in result for name in required):
        raise InvocationError("JSON_ERROR", f"the custom stream's {operation} returned {result!r:.200}")
    return result
