"""Custom streams: a project's own functions `stream::get(NAME)` and so on stand in for the storage.

Which of them there are is asked of the engine once, and again after it has reported that the functions of the project
have changed. A call to find out would be a failed call in the eyes of everybody who watches the project.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

from iii import InvocationError
from stdlib_workers.events import Caller

# Result of `call` for a stream that has no such function.
ABSENT: Any = object()


class CustomStreams:
    """Calls the functions of custom streams."""

    def __init__(self, worker: Caller) -> None:
        self._worker = worker
        self._present: frozenset[str] | None = None  # None: to be asked
        self._changes = 0

    def forget(self, _: Any = None) -> None:
        """Forget which functions there are: the functions of the project have changed."""
        self._changes += 1
        self._present = None

    async def call(self, operation: str, stream: str, payload: Any) -> Any:
        """Return the result of `stream::OPERATION(STREAM)`, ABSENT when there is no such function."""
        function_id = f"stream::{operation}({stream})"
        present = self._present
        if present is None:
            # In a context of its own: it is no part of the call that it is done for.
            present = await asyncio.get_running_loop().create_task(self._ask(), context=Context())
        if function_id not in present:
            return ABSENT
        try:
            return await self._worker.trigger_async({"function_id": function_id, "payload": payload})
        except InvocationError as error:
            if error.code != "function_not_found" or function_id not in error.message:
                raise
        self.forget()
        return ABSENT

    async def _ask(self) -> frozenset[str]:
        changes = self._changes
        request = {"prefix": "stream::", "include_internal": True}
        rows = (await self._worker.trigger_async("engine::functions::list", request))["functions"]
        present = frozenset(row["function_id"] for row in rows)
        if changes == self._changes:
            self._present = present
        return present


def fields_of(result: Any, operation: str, *required: str) -> dict[str, Any]:
    """Return the result of a custom `set`, `update` or `delete`. InvocationError `JSON_ERROR` for what does not fit."""
    if result is None:
        code = f"STREAM_{operation.upper()}_ERROR"
        raise InvocationError(code, f"the custom stream's {operation} returned nothing")
    if not isinstance(result, dict) or any(name not in result for name in required):
        raise InvocationError("JSON_ERROR", f"the custom stream's {operation} returned {result!r:.200}")
    return result
