"""The JSON Schema of a worker's configuration, and the mistakes of a configuration in words. Pure but for one file.

Public: standard workers may import it. Each ships `config.schema.json` beside its code, and everything that looks at a
configuration goes by that file: `iii check` and the engine before anything starts, the worker itself, editors, and
`iii add NAME --help`. The keywords are those of JSON Schema that the files use; `title` says in a few words what a
value is, where its type does not.
"""

from __future__ import annotations

import json
import re

from iii.suggestions import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    Schema = Mapping[str, Any]
    KeyPath = tuple[str | int, ...]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_WORDS = {
    "object": "a table",
    "string": "a string that is not blank",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}

_PLURALS = {"object": "tables", "string": "strings that are not blank"}


class Mistake:
    """One mistake: the path of the wrong value or key, one sentence about it, and what to do."""

    def __init__(self, path: KeyPath, message: str, hint: str = "") -> None:
        self.path = path
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        where = ".".join(map(str, self.path[:-1]))
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}; {self.hint}" if self.hint else text


def load_schema(stdlib_workers: Path, worker: str) -> dict[str, Any] | None:
    """Return the schema of a standard worker; None if there is none of that name."""
    try:
        schema: dict[str, Any] = json.loads(
            (stdlib_workers / worker / "config.schema.json").read_text(encoding="utf-8")
        )
    except FileNotFoundError:
        return None
    return schema


def mistakes(value: Any, schema: Schema, path: KeyPath = ()) -> Iterator[Mistake]:
    """Yield the mistakes of a value, in the order in which they are written."""
    if not _has_form(value, schema):
        # Inside of a table that is one of several forms the mistake is in the table.
        inside = [option for option in schema.get("anyOf", ()) if isinstance(value, dict) and "properties" in option]
        if inside:
            yield from mistakes(value, inside[0], path)
        else:
            yield Mistake(path, f"{_name_of(path)} must be {wanted(schema)}, got {shown(value)}")
    elif isinstance(value, dict):
        yield from _mistakes_of_table(value, schema, path)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from mistakes(item, schema.get("items", {}), (*path, index))


def _mistakes_of_table(table: Mapping[str, Any], schema: Schema, path: KeyPath) -> Iterator[Mistake]:
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    names = schema.get("propertyNames", {})
    for name, value in table.items():
        if name in known and value is None:
            continue  # null, which TOML does not have, is the default
        if name in known:
            yield from mistakes(value, known[name], (*path, name))
        elif others is False:
            hint = did_you_mean(name, known) or f"known keys are {', '.join(known)}"
            yield Mistake((*path, name), f"unknown key `{brief(name)}`", hint)
        elif not re.search(names.get("pattern", ""), name):
            yield Mistake((*path, name), f"`{brief(name)}` is not {names['title']}")
        elif isinstance(others, dict):
            yield from mistakes(value, others, (*path, name))
    for name in (*schema.get("required", ()), *_required_then(table, schema)):
        if table.get(name) is None:
            yield Mistake((*path, name), f"{name} is missing: it must be {wanted(known.get(name, {}))}")
    yield from _mistakes_of_keys_together(table, schema, path)


def _mistakes_of_keys_together(table: Mapping[str, Any], schema: Schema, path: KeyPath) -> Iterator[Mistake]:
    """Yield the keys that a table may not hold beside others, as `x-exclusive` and `x-same-field` say.

    `x-exclusive`: [{key, value?, with: [key], why}]. `x-same-field`: [[key, other]]: where the other key is about a
    field of its own, the first must be about the same. Mistakes inside the keys are others' to tell.
    """
    for rule in schema.get("x-exclusive", ()):
        key, value = rule["key"], table.get(rule["key"])
        if value is None or value != rule.get("value", value):
            continue
        for name in rule["with"]:
            if table.get(name) is not None:
                what = f'{key} = "{value}"' if "value" in rule else key
                yield Mistake((*path, name), f"{name} cannot be used with {what}", rule["why"])
    for key, other in schema.get("x-same-field", ()):
        field = _field_of(table.get(other))
        if table.get(key) is not None and field is not None and field != (own := _field_of(table[key])):
            about = "no field" if own is None else f"the field {shown(own)}"
            hint = f"give {key} the field {shown(field)}, so that all jobs of one batch have one key"
            yield Mistake((*path, other), f"{other} is about the field {shown(field)}, and {key} about {about}", hint)


def _field_of(value: Any) -> Any:
    return value.get("field") if isinstance(value, dict) else value


def _name_of(path: KeyPath) -> str:
    """Return the key at the end of a path, with the indexes behind it."""
    indexes = ""
    while path and isinstance(path[-1], int):
        path, indexes = path[:-1], f"[{path[-1]}]{indexes}"
    return f"{brief(str(path[-1])) if path else 'config'}{indexes}"


def _required_then(table: Mapping[str, Any], schema: Schema) -> tuple[str, ...]:
    condition = schema.get("if")
    if condition is None:
        return ()
    fixed = {name: part["const"] for name, part in condition["properties"].items()}
    holds = all(table.get(name) == value for name, value in fixed.items())
    return tuple(schema["then"]["required"]) if holds else ()


def _has_form(value: Any, schema: Schema) -> bool:
    """Whether the value has the type and the limits of a schema; the inside of tables and lists is not looked at."""
    if "anyOf" in schema:
        return any(next(mistakes(value, option), None) is None for option in schema["anyOf"])
    if "enum" in schema:
        return any(value == choice and type(value) is type(choice) for choice in schema["enum"])
    kind = schema.get("type")
    if kind is None:
        return True
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if kind in ("integer", "number"):
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        return bool(least <= value <= most and value > schema.get("exclusiveMinimum", float("-inf")))
    return kind != "string" or re.search(schema.get("pattern", ""), str(value)) is not None


def wanted(schema: Schema) -> str:
    """Return what a value of a schema is, in words."""
    if "title" in schema and "$schema" not in schema:
        return str(schema["title"])
    if "enum" in schema:
        return " or ".join(f'"{choice}"' for choice in schema["enum"])
    kind = str(schema.get("type"))
    if kind == "array":
        return f"a list of {_PLURALS.get(schema.get('items', {}).get('type'), 'values')}"
    text = _WORDS.get(kind, "something else")
    if kind == "string" and "pattern" not in schema:
        return "a string"
    if "maximum" in schema:
        return f"{text} from {schema['minimum']} to {schema['maximum']}"
    return f"{text}, at least {schema['minimum']}" if "minimum" in schema else text


def shown(value: Any) -> str:
    """Return a value as a message quotes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    try:
        text = repr(value) if not isinstance(value, str) else '"' + value.replace('"', '\\"') + '"'
    except ValueError:  # Python does not write out a number of more than 4300 digits
        return "a number too long to show"
    return brief(text)


def brief(text: str) -> str:
    """Return a name or value as it fits into a message."""
    return text if len(text) <= 60 else text[:57] + "..."
