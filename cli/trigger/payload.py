"""`k=v` and `--json` texts -> the payload of a call, guided by the function's schema when it is known.

Pure, and part of the short path. Called by `trigger`.
"""

from __future__ import annotations

from cli.text.json import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NUMBERS = ("number", "integer")


def parse_json(text: str, option: str) -> Any:
    """Return the value of a JSON text. Raises UsageError with a caret under what is wrong."""
    try:
        return decode(text)
    except (ValueError, RecursionError) as error:
        from cli.client.errors import UsageError  # only a failure pays for it

        raise UsageError(f"{option}: invalid JSON: {_reason(error)}", _caret(text, error)) from None


def build(pairs: list[tuple[str, str]], base: Any, schema: Any = None) -> Any:
    """Return `base` (the value of --json, or an empty object) with the pairs laid over it. Raises UsageError."""
    if not pairs:
        return base
    if not isinstance(base, dict):
        from cli.client.errors import UsageError  # only a failure pays for it

        raise UsageError("--json must be an object when it is combined with key=value pairs")
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    return base | {key: convert(text, properties.get(key)) for key, text in pairs}


def convert(text: str, schema: Any = None) -> Any:
    """Return the value that `text` stands for: JSON if it parses, else itself; a schema's types win over both."""
    value = _guess(text)
    types = types_of(schema)
    if not types or _fits(value, types):
        return value
    if "string" in types:
        return text
    if isinstance(value, str) and value != text:
        return _fitting(_guess(value), value, types)
    return value


def types_of(schema: Any) -> set[str]:
    """Return the JSON types that a schema allows; empty when it does not say."""
    if not isinstance(schema, dict):
        return set()
    declared = schema.get("type", [])
    types = set(declared if isinstance(declared, list) else [declared])
    for word in ("anyOf", "oneOf"):
        for option in schema.get(word, ()):
            types |= types_of(option)
    return types


def _fitting(value: Any, otherwise: Any, types: set[str]) -> Any:
    return value if _fits(value, types) else otherwise


def _guess(text: str) -> Any:
    try:
        return decode(text)
    except (ValueError, RecursionError):
        return text


def _fits(value: Any, types: set[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, (int, float)):
        return any(name in types for name in _NUMBERS)
    names = {str: "string", list: "array", dict: "object", type(None): "null"}
    return names[type(value)] in types


def _reason(error: Exception) -> str:
    return str(getattr(error, "msg", error))


def _caret(text: str, error: Exception) -> str:
    at = getattr(error, "pos", None)
    if at is None:
        return ""
    start = max(text.rfind("\n", 0, at) + 1, at - 40)
    end = text.find("\n", at)
    line = text[start : min(len(text) if end < 0 else end, at + 40)]
    return f"  {line}\n  {' ' * (at - start)}^"
