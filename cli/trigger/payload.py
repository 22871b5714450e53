"""`k=v` and `--json` texts -> the payload of a call, guided by the function's schema when it is known.

Pure, and part of the short path.
"""

from __future__ import annotations

from cli.text.json import decode
from cli.trigger.arguments import usage_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What is deeper is read better in the schema itself.
DEPTH = 4


def parse_json(text: str, option: str) -> Any:
    """Return the value of a JSON text. Raises UsageError with a caret under what is wrong."""
    try:
        return decode(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        caret = ""
        at: int | None = getattr(error, "pos", None)
        if at is not None:
            start = max(text.rfind("\n", 0, at) + 1, at - 40)
            end = text.find("\n", at)
            line = text[start : min(len(text) if end < 0 else end, at + 40)]
            caret = f"  {line}\n  {' ' * (at - start)}^"
        raise usage_error(f"{option}: invalid JSON: {getattr(error, 'msg', error)}", caret) from None


def build(pairs: list[tuple[str, str]], base: Any, schema: Any = None) -> Any:
    """Return `base` (the value of --json, or an empty object) with the pairs laid over it. Raises UsageError."""
    if not pairs:
        return base
    if not isinstance(base, dict):
        raise usage_error("--json must be an object when it is combined with key=value pairs")
    properties = resolved(schema, schema).get("properties", {})
    return base | {key: convert(text, properties.get(key), schema) for key, text in pairs}


def convert(text: str, schema: Any = None, root: Any = None) -> Any:
    """Return the value that `text` stands for: JSON if it parses, else the text; a schema's types win over both.

    References of the schema are to definitions of `root`.
    """
    value = _guess(text)
    types = types_of(schema, root)
    if not types or _fits(value, types):
        return value
    if "string" in types:
        return text
    if isinstance(value, str) and value != text:
        inner = _guess(value)
        return inner if _fits(inner, types) else value
    return value


def types_of(schema: Any, root: Any, depth: int = 0) -> set[str]:
    """Return the JSON types that a schema allows; empty if it names none. A circle of references ends."""
    schema = resolved(schema, root)
    declared = schema.get("type", [])
    types = set(declared if isinstance(declared, list) else [declared])
    for word in ("anyOf", "oneOf"):
        for option in schema.get(word, ()) if depth < DEPTH else ():
            types |= types_of(option, root, depth + 1)
    return types


def resolved(schema: Any, root: Any) -> dict[str, Any]:
    """Follow local references. A circle ends at the depth limit, an unknown one shows as `any`."""
    for _ in range(DEPTH):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        target = root
        for part in reference[2:].split("/"):
            target = target.get(part) if isinstance(target, dict) else None
        schema = {**target, **beside} if isinstance(target, dict) else beside
    return schema if isinstance(schema, dict) else {}


def _guess(text: str) -> Any:
    try:
        return decode(text)
    except (ValueError, RecursionError):
        return text


def _fits(value: Any, types: set[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, (int, float)):
        return not types.isdisjoint(("number", "integer"))
    names = {str: "string", list: "array", dict: "object", type(None): "null"}
    return names[type(value)] in types
