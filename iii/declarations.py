"""What the functions and trigger types of a folder take and give: `declarations.json` beside their code.

Public: standard workers may import it. The file holds, by id, the JSON Schemas with which each function and trigger
type is registered; `$defs` are schemas that several of them share. What the config of every trigger type may say about
arguments is added to each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from iii.arguments import CONFIG_PROPERTIES

_DEFINITIONS = "#/$defs/"


class Declarations(NamedTuple):
    """By id: the formats of each function, and what `register_trigger_type` takes of each trigger type."""

    functions: dict[str, dict[str, Any]]
    trigger_types: dict[str, Any]


def load_declarations(folder: Path) -> Declarations:
    """Return what `declarations.json` of the folder declares; each schema with the definitions that it refers to."""
    content = json.loads((folder / "declarations.json").read_text(encoding="utf-8"))
    definitions = content.get("$defs", {})
    functions, trigger_types = content["functions"], content.get("trigger_types", {})
    for declaration in (*functions.values(), *trigger_types.values()):
        for name in declaration:
            if name.endswith("_format") and definitions:
                declaration[name] = _with_definitions(declaration[name], definitions)
    for id, declaration in trigger_types.items():
        declaration["id"] = id
        if "call_request_format" in declaration:  # what has an event can make arguments of it
            declaration["trigger_request_format"]["properties"] |= CONFIG_PROPERTIES
    return Declarations(functions, trigger_types)


def _with_definitions(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    used = {name: definitions[name] for name in _references(schema)}
    return {**schema, "$defs": used} if used else schema


def _references(schema: Any) -> list[str]:
    """Return the names of the definitions that a schema refers to; definitions refer to no other ones."""
    names: dict[str, None] = {}
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if "$ref" in node:
                names[node["$ref"].removeprefix(_DEFINITIONS)] = None
            pending += node.values()
        elif isinstance(node, list):
            pending += node
    return list(names)
