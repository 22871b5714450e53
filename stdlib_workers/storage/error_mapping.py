"""Error mapping: a failure of the storage in a handler becomes the error code that the contract has for its function.

What a handler raises by itself passes unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from stdlib_workers.storage.errors import StorageFailure

Handler = Callable[[Any], Any]


def map_storage_errors(code: str, handler: Handler) -> Handler:
    """Return the handler, async if it is; a `StorageFailure` in it becomes an InvocationError `code`."""
    if iscoroutinefunction(handler):

        @wraps(handler)
        async def run_async(payload: Any) -> Any:
            try:
                return await handler(payload)
            except StorageFailure as failure:
                raise failure.with_code(code) from None

        return run_async

    @wraps(handler)
    def run(payload: Any) -> Any:
        try:
            return handler(payload)
        except StorageFailure as failure:
            raise failure.with_code(code) from None

    return run
