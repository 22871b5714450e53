"""JSON by the standard library alone, and which Python values are accepted beside plain JSON.

It is as strict as the SDK needs it but for long integers and nesting. The first lines of a worker are encoded by the C
encoder inside the package `json`: the package itself loads `re`, and would cost a worker's start 6 ms. It is loaded
when the first line comes in, usually after `ready`.
"""

from __future__ import annotations

import math
import sys

from iii.worker.codec.limits import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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

        hooks: dict[str, Any] = {"parse_constant": _finite, "parse_float": _finite}
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


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def plain_value(value: Any) -> Any:
    """Return the plain value that stands for `value` in JSON.

    Dataclasses become objects, enums their value, dates ISO 8601, sets and tuples arrays, UUID and Decimal
    strings, bytes base64; pydantic models are dumped by alias without None fields. TypeError for the rest.
    """
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(by_alias=True, exclude_none=True, mode="json")
    if isinstance(value, set | frozenset | tuple):  # orjson does not take a NamedTuple for the tuple that it is
        return list(value)
    if isinstance(value, str):  # of a class below it, which fast libraries do not take for one
        return str.__str__(value)
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        import base64  # needed for bytes only

        return base64.b64encode(value).decode()
    cls = type(value)
    if is_subclass(cls, "enum", "Enum"):
        return value.value
    if is_subclass(cls, "datetime", "date", "time"):
        return value.isoformat()
    if is_subclass(cls, "uuid", "UUID") or is_subclass(cls, "decimal", "Decimal"):
        return str(value)
    raise TypeError(f"{cls.__name__} is not JSON")


def is_subclass(cls: type, module: str, *names: str) -> bool:
    """Tell whether `cls` is one of these classes, or below one, without importing their module.

    A class from a module that is not loaded cannot be met.
    """
    loaded = sys.modules.get(module)
    return loaded is not None and issubclass(cls, tuple(getattr(loaded, name) for name in names))


def find_unencodable(value: Any, path: str = "$", depth: int = 0) -> tuple[str, str] | None:
    """Return (path, reason) of the first part of `value` that JSON cannot hold, or None."""
    if depth > MAX_DEPTH:
        return path, f"nested deeper than {MAX_DEPTH}"
    if isinstance(value, dict):
        return _first_fault(((f"{path}.{key}", key, item) for key, item in value.items()), depth)
    if isinstance(value, list | tuple):
        return _first_fault(((f"{path}[{index}]", "", item) for index, item in enumerate(value)), depth)
    if value is None or isinstance(value, bool | str | int | float):
        reason = _scalar_fault(value)
        return (path, reason) if reason else None
    try:
        plain = plain_value(value)
    except (TypeError, ValueError, AttributeError) as error:
        return path, str(error)
    return find_unencodable(plain, path, depth + 1)


def _first_fault(parts: Iterable[tuple[str, Any, Any]], depth: int) -> tuple[str, str] | None:
    for path, key, item in parts:
        if not isinstance(key, str | int | float | bool | None):
            return path, f"a key of type {type(key).__name__}"
        key_fault = _scalar_fault(key)
        if key_fault:
            return path, f"{key_fault} in a key"
        fault = find_unencodable(item, path, depth + 1)
        if fault:
            return fault
    return None


def _scalar_fault(value: Any) -> str | None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "lone surrogate"
    elif isinstance(value, float):
        return None if math.isfinite(value) else f"{value} is not JSON"
    elif isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return "integer beyond 64 bits"
    return None


_encode = _make_encoder()
