"""Reading the optional fields of a query: null counts as absent. Pure.

InvocationErrors have the contract's codes: `deserialization_error` for a field of the wrong type, `time_value_overflow`
for a time in milliseconds that nanoseconds cannot hold.
"""

from __future__ import annotations

from typing import Any

from iii import InvocationError
from stdlib_workers.observability.records.spans import MAX_INTEGER, MILLISECOND
from stdlib_workers.values import Payload, malformed


class QueryParams:
    """The payload of one query, read field by field."""

    def __init__(self, function_id: str, payload: Any) -> None:
        self._function_id = function_id
        # The public worker takes no payload at all for "everything".
        self._fields: dict[str, Any] = payload if isinstance(payload, dict) else {}
        self._payload = Payload(function_id, {} if payload is None else payload)

    def text(self, name: str) -> str | None:
        """Return a string."""
        return None if self._fields.get(name) is None else self._payload.string(name)

    def required(self, name: str) -> str:
        """Return a string. InvocationError when it is absent."""
        return self._payload.string(name)

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Return an integer from 0 on."""
        return self._payload.integer(name, default, 0, MAX_INTEGER)

    def count(self, name: str, default: int) -> int:
        """Return an integer from 0 on, `default` when absent."""
        value = self.integer(name, default)
        return default if value is None else value

    def number(self, name: str) -> float | None:
        """Return a number."""
        value = self._fields.get(name)
        if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return value
        raise malformed(self._function_id, f"{name} must be a number, got {value!r}")

    def flag(self, name: str) -> bool:
        """Return true or false, false when absent."""
        value = self._fields.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise malformed(self._function_id, f"{name} must be true or false, got {value!r}")

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of strings."""
        value = self._fields.get(name)
        if value is None:
            return None
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise malformed(self._function_id, f"{name} must be a list of strings")

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return a list of pairs of strings, empty when absent."""
        value = self._fields.get(name)
        if value is None:
            return ()
        if isinstance(value, list) and all(_is_pair(item) for item in value):
            return tuple((item[0], item[1]) for item in value)
        raise malformed(self._function_id, f"{name} must be a list of [key, value] pairs of strings")

    def nanoseconds(self, name: str) -> int | None:
        """Return a time given in milliseconds. InvocationError `time_value_overflow`."""
        milliseconds = self.integer(name)
        if milliseconds is None:
            return None
        if milliseconds > MAX_INTEGER // MILLISECOND:
            raise InvocationError("time_value_overflow", f"{name} is too large: {milliseconds} ms")
        return milliseconds * MILLISECOND


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)
