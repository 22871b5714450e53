"""Functions as tools: which ones, under which name, and with which schema of their arguments. Pure.

MCP clients take names of letters, digits, `_` and `-`, 64 at most, so `orders::create` is the tool `orders__create`.
Functions whose names would be the same get a few letters of a hash of their id behind it. Arguments of a tool are an
object: a payload of another kind is its argument `payload`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from stdlib_workers.mcp.options import Options
from stdlib_workers.values.payload import encode

MAX_NAME = 64
# Bytes of a schema: 100 of the largest ones on a page of tools stay below the limit of a line.
MAX_SCHEMA = 64 * 1024
PAYLOAD = "payload"
_HASH = 8


@dataclass(frozen=True)
class FunctionTool:
    """A chosen function: what the engine calls it, what clients call it."""

    name: str
    function_id: str
    namespace: str
    description: str


class Schemas(NamedTuple):
    """The JSON Schemas of a function's payload and result; None without one."""

    payload: Any = None
    result: Any = None


def chosen_functions(
    rows: Iterable[Mapping[str, Any]], options: Options, taken: Iterable[str] = ()
) -> tuple[dict[str, FunctionTool], list[str]]:
    """Return the tools by name, and the ids of chosen functions that cannot be tools since they lack a description.

    `rows` are those of `engine::functions::list`; `taken` are names that no function may have.
    """
    chosen = [row for row in rows if options.is_chosen(row["function_id"], row.get("metadata"))]
    described = [row for row in chosen if str(row.get("description") or "").strip()]
    plain = [(_plain_name(row["function_id"]), row) for row in described]
    counts = Counter([*(name for name, _ in plain), *taken])
    tools = {}
    for name, row in plain:
        function_id, namespace = row["function_id"], row["namespace"]
        if counts[name] > 1 or len(name) > MAX_NAME:
            digest = sha256(f"{namespace}\0{function_id}".encode()).hexdigest()[:_HASH]
            name = f"{name[: MAX_NAME - _HASH - 1]}_{digest}"  # noqa: PLW2901 - the same name, made unique
        tools[name] = FunctionTool(name, function_id, namespace, row["description"].strip())
    ids = {tool.function_id for tool in tools.values()}
    return tools, [row["function_id"] for row in chosen if row["function_id"] not in ids]


def _plain_name(function_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", function_id) or "_"


def input_schema(schema: Any) -> dict[str, Any] | None:
    """Return the schema of a tool's arguments for the schema of a payload, None for a function without one.

    A schema that is too long is replaced by one that allows every object, and says so.
    """
    if not isinstance(schema, dict) or not schema:
        return None
    if len(encode(schema)) > MAX_SCHEMA:
        return {"type": "object", "description": f"The schema is longer than {MAX_SCHEMA} bytes, and left out here."}
    if takes_object(schema):
        return {**schema, "type": "object"}
    # References point to the root of the document they stand in.
    names = ("$schema", "$defs", "definitions")
    root = {name: schema[name] for name in names if name in schema}
    inner = {name: value for name, value in schema.items() if name not in names}
    return {**root, "type": "object", "properties": {PAYLOAD: inner}, "required": [PAYLOAD]}


def output_schema(schema: Any) -> dict[str, Any] | None:
    """Return the schema of a tool's structured result for that of a function's result; only objects have one.

    Texts, numbers and lists are blocks of text alone, and so are results whose schema is too long to be shown.
    """
    is_object = isinstance(schema, dict) and schema.get("type") == "object"
    return schema if is_object and len(encode(schema)) <= MAX_SCHEMA else None


def takes_object(schema: Mapping[str, Any]) -> bool:
    """Tell whether a payload of this schema is an object, which then has the arguments of the tool in it."""
    kinds = schema.get("type", "object" if "properties" in schema else None)
    return "object" in (kinds if isinstance(kinds, list) else [kinds])


def payload_of(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    """Return the payload that the arguments of a tool are for its function."""
    return dict(arguments) if takes_object(schema) else arguments.get(PAYLOAD)
