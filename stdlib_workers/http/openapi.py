"""The OpenAPI 3.1 document of the live routes. Pure: routes and what the engine knows of their functions go in.

A function's request schema describes the whole request object, so its `body`, `path_params` and `query_params` become
the request body and the parameters; of the response schema the `body` counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stdlib_workers.http.routes import Kind, Route

Schema = dict[str, Any]

# The methods that a path item of OpenAPI has a place for.
_OPERATIONS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ERROR_SCHEMA: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object"},
                "error_id": {"type": "string"},
            },
        }
    },
}


def document_from(title: str, routes: Iterable[Route], functions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document. `functions` maps ids to rows of `engine::functions::info`; one may be missing."""
    schemas: dict[str, Schema] = {"Error": ERROR_SCHEMA}
    paths: dict[str, dict[str, Any]] = {}
    for route in sorted(routes, key=lambda route: (route.pattern.removeprefix("/"), route.method)):
        if route.method in _OPERATIONS:
            function = functions.get(route.function_id, {})
            path = paths.setdefault(path_template(route), {})
            path[route.method.lower()] = _operation(route, function, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "live"},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def path_template(route: Route) -> str:
    """Return the route's path as OpenAPI writes it: `/users/{id}`."""
    return "/" + "/".join(
        segment.text if segment.kind is Kind.LITERAL else f"{{{segment.text}}}" for segment in route.segments
    )


def _operation(route: Route, function: Mapping[str, Any], schemas: dict[str, Schema]) -> dict[str, Any]:
    request = _hoist(function.get("request_schema"), route.function_id, schemas)
    response = _hoist(function.get("response_schema"), f"{route.function_id}.response", schemas)
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()} {path_template(route)}",
        "tags": [route.function_id.partition("::")[0]],
        "x-function-id": route.function_id,
        "parameters": _parameters(route, request),
        "responses": _responses(route.method, _property(response, "body")),
    }
    lines = str(function.get("description") or "").strip().split("\n", 1)
    if lines[0]:
        operation["summary"] = lines[0]
        operation["description"] = "\n".join(lines)
    if route.method in _WITH_BODY:
        body = _property(request, "body")
        content = {"application/json": {"schema": body or {}}}
        operation["requestBody"] = {"required": "body" in request.get("required", []), "content": content}
    return operation


def _parameters(route: Route, request: Schema) -> list[dict[str, Any]]:
    in_path = _property(request, "path_params").get("properties", {})
    rows: list[dict[str, Any]] = [
        {
            "name": segment.text,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, **in_path.get(segment.text, {})},
        }
        for segment in route.segments
        if segment.kind is not Kind.LITERAL
    ]
    query = _property(request, "query_params")
    required = query.get("required", [])
    for name, schema in query.get("properties", {}).items():
        rows.append({"name": name, "in": "query", "required": name in required, "schema": schema})
    return rows


def _responses(method: str, body: Schema) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, Any] = {
        "2XX": {"description": "What the function returns.", "content": {"application/json": {"schema": body}}},
        "default": {"description": "The function failed, or was not called.", "content": error},
    }
    if method in _WITH_BODY:
        responses["204"] = {"description": "Done; there is nothing to return."}
    return responses


def _property(schema: Schema, name: str) -> Schema:
    found = schema.get("properties", {}).get(name, {})
    return found if isinstance(found, dict) else {}


def _hoist(schema: Any, owner: str, schemas: dict[str, Schema]) -> Schema:
    """Return the schema with its definitions moved to the document, where a reference can find them."""
    if not isinstance(schema, dict):
        return {}
    prefix = owner.replace("::", ".")
    for name, definition in schema.get("$defs", {}).items():
        schemas[f"{prefix}.{name}"] = _point_to(definition, prefix)
    moved: Schema = _point_to({key: value for key, value in schema.items() if key not in ("$defs", "$schema")}, prefix)
    return moved


def _point_to(value: Any, prefix: str) -> Any:
    if isinstance(value, list):
        return [_point_to(item, prefix) for item in value]
    if not isinstance(value, dict):
        return value
    out = {key: _point_to(item, prefix) for key, item in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/$defs/"):
        out["$ref"] = f"#/components/schemas/{prefix}.{reference.removeprefix('#/$defs/')}"
    return out
