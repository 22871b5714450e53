"""JSON values to bytes and back, as the storage and the outbox hold them. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from iii import InvocationError

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode(value: Any) -> bytes:
    """Return compact JSON. InvocationError `serialization_error` for what JSON or UTF-8 cannot hold."""
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvocationError("serialization_error", f"the value is not JSON: {error}") from None


def decode(text: bytes) -> Any:
    """Return the value of JSON that `encode` made."""
    return _decoder.decode(text)
