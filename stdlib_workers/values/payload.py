"""JSON payloads: read field by field, with the contract's `deserialization_error`; values to bytes and back. Pure.

The engine has checked the schema already, unless the project has turned that off; these checks always run.
Unknown fields are ignored.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from iii import InvocationError

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def malformed(function_id: str, message: str) -> InvocationError:
    """Return the error for a payload that does not fit the function."""
    return InvocationError("deserialization_error", f"{function_id}: {message}", function_id)


class Payload:
    """The fields of one call's payload."""

    __slots__ = ("_fields", "_function_id")

    def __init__(self, function_id: str, payload: Any) -> None:
        self._function_id = function_id
        if not isinstance(payload, dict):
            raise malformed(function_id, f"the payload must be an object, got {_shown(payload)}")
        self._fields = payload

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def string(self, name: str) -> str:
        """Return a required string field."""
        value = self._fields.get(name)
        if not isinstance(value, str):
            self._refuse(name, "a string")
        return value

    def integer(self, name: str, default: int | None, least: int, most: int) -> int | None:
        """Return an optional integer field from `least` to `most`; null counts as absent."""
        value = self._fields.get(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            self._refuse(name, "an integer")
        if not least <= value <= most:
            raise malformed(self._function_id, f"{name} must be {least} to {most}, got {value}")
        return value

    def value(self, name: str, alias: str | None = None) -> Any:
        """Return a required field of any JSON value, null too. A payload with both `name` and `alias` is an error."""
        if alias is not None and alias in self._fields:
            if name in self._fields:
                raise malformed(self._function_id, f"give {name} or {alias}, not both")
            return self._fields[alias]
        if name not in self._fields:
            raise malformed(self._function_id, f"{name} is missing")
        return self._fields[name]

    def get(self, name: str) -> Any:
        """Return an optional field."""
        return self._fields.get(name)

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        if name not in self._fields:
            raise malformed(self._function_id, f"{name} is missing")
        raise malformed(self._function_id, f"{name} must be {wanted}, got {_shown(self._fields[name])}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def encode(value: Any) -> bytes:
    """Return compact JSON. InvocationError `serialization_error` for what JSON or UTF-8 cannot hold."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvocationError("serialization_error", f"the value is not JSON: {error}") from None


def decode(text: bytes) -> Any:
    """Return the value of JSON. ValueError for what is none, RecursionError for what nests too deep."""
    return _decoder.decode(text)
