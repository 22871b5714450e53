"""`iii trigger FUNCTION --help`: a page made from the function's live schema; without a function, the static page.

`page` is pure. An engine that cannot be reached costs only the live part.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from cli.client.connection import connect
from cli.client.error_hints import explained
from cli.text.output import shown, write, write_error
from cli.trigger.arguments import Arguments
from cli.trigger.payload import DEPTH, convert, resolved, types_of
from iii.errors import EngineNotRunning, ErrorCode

USAGE = "iii trigger FUNCTION [key=value ...] [--json OBJECT|-] [options]"
OPTIONS = """\
Options:
  key=value         JSON if it parses, else a string; converted to what the schema says
  --json OBJECT|-   the payload, `-` reads it from stdin; pairs override its keys
  --void            do not wait for a result
  --enqueue QUEUE   put the call into a queue and print its receipt
  --action OBJECT   deliver by any action, e.g. '{"type": "enqueue", "queue": "emails"}'
  --timeout-ms N    give up after N milliseconds (exit code 124)
  --metadata OBJECT sent beside the payload
  -n, --namespace   namespace of the function
  --watch           call again after each reload
  --raw             print the result as one compact line
  --engine ADDRESS  socket path or ws:// URL of the engine
  --address, --port the host and port of the engine's listener, in place of --engine
  -h, --help        this page; after a function, that function's page"""
TIP = "List the functions with `iii functions`; see one with `iii trigger FUNCTION --help`."
_EXAMPLES: dict[str, Any] = {"string": "text", "number": 1, "integer": 1, "boolean": True, "array": [], "object": {}}


def run(arguments: Arguments) -> int:
    """Print the page for `arguments`; without a function the static page, with exit code 2 unless --help was given."""
    if arguments.function_id is None:
        text = f"Usage: {USAGE}\n\nCall a function and print its result.\n\n{OPTIONS}\n\n{TIP}"
        if arguments.help:
            write(text)
            return 0
        write_error(f"error: missing FUNCTION\n{text}")
        return 2
    try:
        with connect(arguments.engine) as connection:
            answer = connection.function_info(arguments.function_id, arguments.namespace)
            if body := answer.get("error"):
                if body.get("code") == ErrorCode.NOT_FOUND:
                    body = {**body, "code": ErrorCode.FUNCTION_NOT_FOUND}
                raise explained(connection.request, arguments.function_id, body, {})
        write(page(answer.get("result") or {"function_id": arguments.function_id}))
    except EngineNotRunning as error:
        write_error(f"warning: {shown(str(error))}")
        write(f"Usage: iii trigger {shown(arguments.function_id)} [key=value ...] [--json OBJECT|-]\n\n{OPTIONS}")
    return 0


def page(info: dict[str, Any]) -> str:
    """Return the page for one function; `info` is the result of `engine::functions::info`."""
    function_id = shown(str(info["function_id"]))
    parts = [f"iii trigger {function_id}"]
    if info.get("description"):
        parts.append("\n".join(shown(line) for line in str(info["description"]).strip().split("\n")))
    parts.append(f"Usage: iii trigger {function_id} [key=value ...] [--json OBJECT|-] [options]")
    return "\n\n".join([*parts, formats(info), OPTIONS])


def formats(info: dict[str, Any]) -> str:
    """Return the arguments and the result of a function as tables, and an example."""
    schema = info.get("request_schema")
    nothing = "  (none)" if schema else "  (no request schema published)"
    parts = [f"Arguments:\n{fields_table(schema) or nothing}"]
    if result := info.get("response_schema"):
        fields = [(name, f"{type_}  {text}") for name, type_, _, _, text in _rows(result, result, 0)]
        text = shown(f"{type_of(result, result)}  {result.get('description', '')}".rstrip())
        parts.append(f"Result:\n{_aligned(fields) if fields else f'  {text}'}")
    parts.append(f"Example:\n  {example(str(info['function_id']), schema)}")
    return "\n\n".join(parts)


def fields_table(schema: Any) -> str:
    """Return the fields of an object's schema as a table; nothing when it names none."""
    rows = list(_rows(schema, schema, 0))
    return _aligned([("name", "type", "required", "default", "description"), *rows]) if rows else ""


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def _rows(schema: Any, root: Any, depth: int) -> Iterator[tuple[str, str, str, str, str]]:
    schema = resolved(schema, root)
    if depth > DEPTH:
        return
    required = schema.get("required") or []
    for name, raw in (schema.get("properties") or {}).items():
        value = resolved(raw, root)
        default = json.dumps(value["default"]) if "default" in value else ""
        need = "yes" if name in required else "no"
        text = shown(" ".join(str(value.get("description", "")).split()))
        yield (
            "  " * depth + shown(str(name)),
            type_of(raw, root, with_null=name in required),
            need,
            shown(default),
            text,
        )
        # Indented: the properties of an object, or of the items of a list.
        inner = value if "properties" in value else resolved(value.get("items"), root)
        yield from _rows(inner, root, depth + 1)


def type_of(schema: Any, root: Any, *, with_null: bool = True) -> str:
    """Return the types of a value in words, or the values it may have; what may be left out needs no null beside it."""
    schema = resolved(schema, root)
    names = [json.dumps(choice) for choice in schema["enum"]] if "enum" in schema else sorted(types_of(schema, root))
    return shown("|".join(name for name in names if with_null or name != "null" or len(names) == 1)) or "any"


def example(function_id: str, schema: Any) -> str:
    """Return a line for a shell: the schema's first example, else its required arguments or the first two."""
    root, schema = schema, resolved(schema, schema)
    properties = schema.get("properties") or {}
    given = next(iter(schema.get("examples") or ()), None)
    if not isinstance(given, dict):
        names = schema.get("required") or list(properties)[:2]
        given = {name: _example_value(resolved(properties.get(name), root), root, 0) for name in names}
    pairs = []
    for name, value in given.items():
        is_plain = isinstance(value, str) and convert(value, properties.get(name), root) == value
        pairs.append(f"{name}={value if is_plain else json.dumps(value, ensure_ascii=False)}")
    return shown(" ".join(shlex.quote(word) for word in ("iii", "trigger", function_id, *pairs)))


def _example_value(schema: Any, root: Any, depth: int) -> Any:
    schema = resolved(schema, root)
    for word in ("default", "const"):
        if word in schema:
            return schema[word]
    for word in ("examples", "enum"):
        if schema.get(word):
            return schema[word][0]
    if schema.get("properties") and depth < DEPTH:
        names = schema.get("required") or []
        return {name: _example_value(schema["properties"].get(name), root, depth + 1) for name in names}
    value = next((value for name, value in _EXAMPLES.items() if name in types_of(schema, root)), "text")
    return max(value, schema.get("minimum", value)) if value == 1 else value
