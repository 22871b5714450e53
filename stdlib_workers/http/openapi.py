"""The OpenAPI 3.1 document of the live routes. Pure: routes and what the engine knows of their functions go in.

A function's request schema describes the whole request object, so its `body`, `path_params` and `query_params` become
the request body and the parameters; of the response schema the `body` counts. Anybody may register any JSON as a
schema: what is none where one belongs is left out, and the routes of others are not concerned.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

from stdlib_workers.http.routes import Route

Schema = dict[str, Any]

# The methods that a path item of OpenAPI has a place for.
_OPERATIONS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
# What stands in names of components and ids of operations.
_NOT_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_TEXT = {"type": "string"}
_FILE = {**_TEXT, "format": "binary"}
# The key `itemSchema` is of OpenAPI 3.2; tools that read 3.1 either know it too or pass it over.
_SERVER_SENT_EVENT = {
    "type": "object",
    "properties": {"data": _TEXT, "event": _TEXT, "id": _TEXT, "retry": {"type": "integer"}},
}
_IN_BODY = ("body", "query_or_body", "form", "file")
ERROR_SCHEMA: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": _TEXT, "message": _TEXT, "details": {"type": "object"}, "error_id": _TEXT},
        }
    },
}
_ERROR = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
_FAILED = {"description": "The function failed, or was not called.", **_ERROR}


def document_from(title: str, routes: Iterable[Route], functions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document. `functions` maps ids to rows of `engine::functions::info`; one may be missing."""
    schemas: dict[str, Schema] = {"Error": ERROR_SCHEMA}
    paths: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for route in sorted(routes, key=lambda route: (route.pattern.removeprefix("/"), route.method)):
        if route.method in _OPERATIONS:
            operation = _operation(route, functions.get(route.function_id, {}), schemas)
            name = f"{route.method.lower()}{route.template}" if route.arguments is None else route.function_id
            operation["operationId"] = name = _unique(name.replace("::", "_"), names)
            names.add(name)
            paths.setdefault(route.template, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "live"},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(route: Route, function: Mapping[str, Any], schemas: dict[str, Schema]) -> dict[str, Any]:
    request = _hoist(function.get("request_schema"), route.function_id, schemas)
    response = _hoist(function.get("response_schema"), f"{route.function_id}.response", schemas)
    body: dict[str, Any] | None = None
    if route.arguments is not None:
        rows, body = _typed_request(route, route.arguments.sources, request)
        responses = _typed_responses(route, response, has_body=body is not None)
    else:
        rows = _parameters(route, request)
        responses = _responses(route.method, _property(response, "body"))
        if route.method in _WITH_BODY:
            is_needed = "body" in _names(request.get("required"))
            body = {"required": is_needed, **_json(_property(request, "body"))}
    operation = {
        "tags": [route.function_id.partition("::")[0]],
        "x-function-id": route.function_id,
        "parameters": rows,
        "responses": responses,
        **({} if body is None else {"requestBody": body}),
    }
    lines = str(function.get("description") or "").strip().split("\n", 1)
    if lines[0]:
        operation |= {"summary": lines[0], "description": "\n".join(lines)}
    return operation


def _json(schema: Schema) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _parameter(name: str, kind: str, schema: Schema, *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": kind, "required": required, "schema": schema}


def _typed_request(
    route: Route, sources: Mapping[str, Mapping[str, Any]], request: Schema
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Return the parameters and the request body of a function that gets arguments."""
    schemas = {name: _property(request, name) for name in sources}
    required = {name for name, source in sources.items() if source.get("required")} | {*_names(request.get("required"))}
    names = set(route.parameters)
    rows: list[dict[str, Any]] = []
    for name, source in sources.items():
        kind, wire = source.get("in"), source.get("name", name)
        if kind in ("path", "query", "header", "cookie"):
            least = {"minLength": 1} if kind == "path" and source.get("type", "string") == "string" else {}
            schema = {"type": source.get("type", "string"), **least, **schemas[name]}
            rows.append(_parameter(wire, kind, schema, required=kind == "path" or name in required))
            names -= {wire} if kind == "path" else set()
    rows += [_parameter(name, "path", {**_TEXT, "minLength": 1}) for name in sorted(names)]
    return rows, _typed_body(sources, schemas, required)


def _typed_body(
    sources: Mapping[str, Mapping[str, Any]], schemas: Mapping[str, Schema], required: set[str]
) -> dict[str, Any] | None:
    """Return the request body: one argument, or an object of those that are its keys or the fields of a form."""
    keys: dict[str, Schema] = {}
    in_body = {name: source for name, source in sources.items() if source.get("in") in _IN_BODY}
    if not in_body:
        return None
    for name, source in in_body.items():
        if source["in"] == "body" and "name" not in source:
            return {"required": name in required, **_json(schemas[name])}
        is_list = source.get("type") == "array"
        file: Schema = {"type": "array", "items": _FILE} if is_list else _FILE
        keys[source.get("name", name)] = file if source["in"] == "file" else schemas[name]
    needed = [source.get("name", name) for name, source in in_body.items() if name in required]
    schema = {"type": "object", "properties": keys, "required": needed, "additionalProperties": False}
    kinds = {source["in"] for source in in_body.values()}
    media = ["application/json"]
    if kinds & {"form", "file"}:
        del schema["additionalProperties"]
        media = (
            ["multipart/form-data"] if "file" in kinds else ["application/x-www-form-urlencoded", "multipart/form-data"]
        )
    return {"required": bool(needed), "content": {each: {"schema": schema} for each in media}}


def _typed_responses(route: Route, response: Schema, *, has_body: bool) -> dict[str, Any]:
    members = [_table(member) for member in _names(response.get("anyOf"))] or [response]
    plain = [member for member in members if member.get("type") != "null" and not _is_marked(member)]
    responses: dict[str, Any] = {}
    if plain:
        schema = plain[0] if len(plain) == 1 else {**response, "anyOf": plain}
        content = _json(schema)
        if route.streams:
            texts = {kind: {"schema": _TEXT} for kind in ("application/x-ndjson", "text/plain")}
            content = {"content": {**texts, "text/event-stream": {"itemSchema": _SERVER_SENT_EVENT}}}
        responses[str(route.status or 200)] = {"description": "What the function returns.", **content}
    may_be_null = not response or any(
        "null" in (_names(member.get("type")) or [member.get("type")]) for member in members
    )
    if may_be_null and not route.streams:
        responses.setdefault(str(route.status or 204), {"description": "Done; there is nothing to return."})
    if any(map(_is_marked, members)):
        responses["2XX"] = {"description": "What the function answers, with a status and a type of its own."}
    if has_body:
        responses["400"] = {"description": "The body cannot be read.", **_ERROR}
    responses["422"] = {"description": "The request gives the function no arguments that fit.", **_ERROR}
    return {**responses, "default": _FAILED}


def _is_marked(schema: Schema) -> bool:
    """Whether values of a schema are responses that the function has made itself."""
    return "const" in _property(schema, "$iii")


def _parameters(route: Route, request: Schema) -> list[dict[str, Any]]:
    in_path, query = _property(request, "path_params"), _property(request, "query_params")
    rows = [
        _parameter(name, "path", {**_TEXT, "minLength": 1, **_property(in_path, name)}) for name in route.parameters
    ]
    required = _names(query.get("required"))
    asked = _table(query.get("properties"))
    return rows + [_parameter(name, "query", _property(query, name), required=name in required) for name in asked]


def _responses(method: str, body: Schema) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "2XX": {"description": "What the function returns.", **_json(body)},
        "default": _FAILED,
    }
    if method in _WITH_BODY or method == "DELETE":
        responses["204"] = {"description": "Done; there is nothing to return."}
    return responses


def _hoist(schema: Any, owner: str, schemas: dict[str, Schema]) -> Schema:
    """Return the schema with its definitions moved to the document, where a reference can find them."""
    table = _table(schema)
    definitions = _table(table.get("$defs"))
    names: dict[str, str] = {}
    for name in definitions:
        names[f"#/$defs/{name}"] = moved_to = _unique(f"{owner.replace('::', '.')}.{name}", schemas)
        schemas[moved_to] = {}
    for name, definition in definitions.items():
        schemas[names[f"#/$defs/{name}"]] = _pointed(definition, names)
    return {key: _pointed(value, names) for key, value in table.items() if key not in ("$defs", "$schema")}


def _pointed(value: Any, names: Mapping[str, str]) -> Any:
    """Return the value with its references pointing to where the definitions are now, and without any others."""
    if isinstance(value, list):
        return [_pointed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    out = {key: _pointed(item, names) for key, item in value.items()}
    if isinstance(reference := value.get("$ref"), str):
        del out["$ref"]
        if reference in names:
            out["$ref"] = f"#/components/schemas/{names[reference]}"
    return out


def _unique(text: str, taken: Container[str]) -> str:
    """Return the text as a name that nobody else has."""
    name = base = _NOT_NAME.sub("_", text.replace("/", "_")).strip("_")
    number = 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _property(schema: Schema, name: str) -> Schema:
    return _table(_table(schema.get("properties")).get(name))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
