"""Reading the optional fields of a query: null counts as absent. Pure.

InvocationErrors have the contract's codes: `deserialization_error` for a field of the wrong type, `time_value_overflow`
for a time in milliseconds that nanoseconds cannot hold.
"""

from __future__ import annotations

from typing import Any

from iii import InvocationError
from stdlib_workers.observability.records.spans import MAX_INTEGER, MILLISECOND
from stdlib_workers.values import Payload, malformed


class QueryParams(Payload):
    """The payload of one query, read field by field; no payload at all is an empty one, as in the public worker."""

    def __init__(self, function_id: str, payload: Any) -> None:
        super().__init__(function_id, {} if payload is None else payload)

    def text(self, name: str) -> str | None:
        return None if self.get(name) is None else self.string(name)

    def whole(self, name: str) -> int | None:
        """Return an integer from 0 on."""
        return self.integer(name, None, 0, MAX_INTEGER)

    def count(self, name: str, default: int) -> int:
        """Return an integer from 0 on, `default` when absent."""
        return self.integer(name, default, 0, MAX_INTEGER) or 0

    def number(self, name: str) -> float | None:
        value: float | None = self.get(name)
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return value
        raise malformed(self._function_id, f"{name} must be a number, got {value!r}")

    def flag(self, name: str) -> bool:
        """Return true or false, false when absent."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise malformed(self._function_id, f"{name} must be true or false, got {value!r}")

    def texts(self, name: str) -> tuple[str, ...] | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise malformed(self._function_id, f"{name} must be a list of strings")

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return a list of pairs of strings, empty when absent."""
        pairs = self.get(name)
        if pairs is None:
            return ()
        is_list = isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
        if is_list and all(isinstance(part, str) for pair in pairs for part in pair):
            return tuple((key, value) for key, value in pairs)
        raise malformed(self._function_id, f"{name} must be a list of [key, value] pairs of strings")

    def nanoseconds(self, name: str) -> int | None:
        """Return a time given in milliseconds. InvocationError `time_value_overflow`."""
        milliseconds = self.whole(name)
        if milliseconds is None:
            return None
        if milliseconds > MAX_INTEGER // MILLISECOND:
            raise InvocationError("time_value_overflow", f"{name} is too large: {milliseconds} ms")
        return milliseconds * MILLISECOND
