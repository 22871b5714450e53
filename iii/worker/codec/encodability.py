"""Values on their way to JSON: which Python types are accepted, and where a value cannot be written.

`plain_value` is the one list of types that the SDK writes beside plain JSON; the standard library's encoder asks it,
and a fast encoder for the types that it does not know itself. `find_unencodable` names the path for the error message.
"""

from __future__ import annotations

import math
import sys

from iii.worker.codec.limits import MAX_DEPTH, MAX_INTEGER, MIN_INTEGER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


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
    if isinstance(value, set | frozenset):
        return list(value)
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
