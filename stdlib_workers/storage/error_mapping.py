"""Handlers that tell a failure of the storage under the code which the contract names for their function.

The standard workers register through this; what a handler raises by itself passes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from stdlib_workers.storage.errors import StorageFailure

Handler = Callable[[Any], Any]


def map_storage_errors(code: str, handler: Handler) -> Handler:
    """Return the handler, async if it is; a `StorageFailure` in it becomes an InvocationError `code`."""
    return _async(code, handler) if iscoroutinefunction(handler) else _sync(code, handler)


def _async(code: str, handler: Callable[[Any], Awaitable[Any]]) -> Handler:
    @wraps(handler)
    async def tell(payload: Any) -> Any:
        try:
            return await handler(payload)
        except StorageFailure as failure:
            raise failure.with_code(code) from None

    return tell


def _sync(code: str, handler: Handler) -> Handler:
    @wraps(handler)
    def tell(payload: Any) -> Any:
        try:
            return handler(payload)
        except StorageFailure as failure:
            raise failure.with_code(code) from None

    return tell
