"""Functions that stand in for others in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Fake:
    """A function of the test's own; `calls` is the list of the payloads that it was called with."""

    def __init__(
        self,
        function_id: str,
        function: Callable[[Any], Any] | None,
        *,
        returns: Any,
        raises: BaseException | type[BaseException] | None,
    ) -> None:
        if (function is not None) + (returns is not None) + (raises is not None) > 1:
            raise ValueError(f"give the fake of {function_id} one of a function, returns and raises")
        self.function_id = function_id
        self.calls: list[Any] = []
        self._function = function
        self._returns = returns
        self._raises = raises

    async def handler(self, payload: Any) -> Any:
        """Record the call, and do what the fake is for."""
        self.calls.append(payload)
        if self._raises is not None:
            raise self._raises
        if self._function is None:
            return self._returns
        result = self._function(payload)
        return await result if hasattr(result, "__await__") else result

    def __repr__(self) -> str:
        return f"<Fake {self.function_id}, {len(self.calls)} calls>"
