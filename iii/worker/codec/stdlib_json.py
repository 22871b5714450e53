"""JSON by the standard library alone, as strict as the SDK needs it but for long integers and nesting.

The first lines of a worker are encoded by the C encoder inside the package `json`: the package itself loads `re`, and
would cost a worker's start 6 ms. It is loaded when the first line comes in, usually after `ready`.
"""

from __future__ import annotations

from iii.worker.codec.encodability import plain_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_decode: Callable[[str], Any] | None = None


def encode_with_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON. TypeError, ValueError or RecursionError for what it cannot hold."""
    return _encode(value).encode()


def decode_with_json(line: bytes) -> Any:
    """Return the value of a line. ValueError for what is not JSON: duplicate keys, NaN and lone surrogates included."""
    global _decode  # noqa: PLW0603 - made once, on the first line
    if _decode is None:
        import json  # see the module docstring

        hooks: dict[str, Any] = {"parse_constant": _refuse_constant, "parse_float": _finite}
        _decode = json.JSONDecoder(object_pairs_hook=_object_from_pairs, **hooks).decode
    value = _decode(line.decode("utf-8"))
    if b"\\ud" in line or b"\\uD" in line:
        from iii.worker.codec.json_diagnosis import find_fault  # surrogates are rare

        if find_fault(line):
            raise ValueError("lone surrogate")
    return value


def _make_encoder() -> Callable[[Any], str]:
    try:
        from _json import encode_basestring, make_encoder  # CPython only
    except ImportError:
        import json  # other interpreters

        return json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain_value).encode
    # In order: markers (circles end in RecursionError), default, strings, indent, separators, no sorting, no
    # skipping of keys, no NaN.
    chunks = make_encoder(None, plain_value, encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


def _object_from_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("number out of range")
    return value


_encode = _make_encoder()
