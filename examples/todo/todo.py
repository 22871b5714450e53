"""A REST API over the state worker, described by its schemas: they are checked before a handler runs, and served.

The document is at /openapi.json, for people at /docs.
"""

import secrets

from iii import InvocationError, register_worker

SCOPE = "todos"
TITLE = {"type": "string", "minLength": 1, "maxLength": 100}
TODO = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "title": TITLE, "done": {"type": "boolean"}},
    "required": ["id", "title", "done"],
}
ID = {"type": "object", "properties": {"id": {"type": "string", "pattern": "^[0-9a-f]{8}$"}}, "required": ["id"]}
# What stands in a URL is text.
LIMIT = {"type": "object", "properties": {"limit": {"type": "string", "pattern": "^[1-9][0-9]{0,2}$"}}}
worker = register_worker()


def request(**parts: dict) -> dict:
    """Return the schema of a request with these parts."""
    return {"type": "object", "properties": parts, "required": [name for name in parts if name != "query_params"]}


def answer(body: dict) -> dict:
    """Return the schema of an answer with this body."""
    return {"type": "object", "properties": {"status_code": {"type": "integer"}, "body": body}}


def fields(*required: str) -> dict:
    """Return the schema of what a client may set."""
    properties = {"title": TITLE, "done": {"type": "boolean"}}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def create(request: dict) -> dict:
    """Add a todo."""
    todo = {"id": secrets.token_hex(4), "done": False, **request["body"]}
    worker.trigger("state::set", {"scope": SCOPE, "key": todo["id"], "value": todo})
    return {"status_code": 201, "body": todo}


def all_of_them(request: dict) -> dict:
    """List todos."""
    page = worker.trigger("state::list", {"scope": SCOPE})
    return {"body": page[: int(request["query_params"].get("limit", "100"))]}


def one(request: dict) -> dict:
    """Return a todo."""
    todo = worker.trigger("state::get", {"scope": SCOPE, "key": request["path_params"]["id"]})
    return {"body": todo} if todo else missing()


def change(request: dict) -> dict:
    """Change what is given of a todo."""
    key = request["path_params"]["id"]
    stored = worker.trigger("state::get_entry", {"scope": SCOPE, "key": key})
    if not stored or not stored["value"]:
        return missing()
    todo = {**stored["value"], **request["body"]}
    try:
        # Whoever changed it in between is not overwritten.
        change = {"scope": SCOPE, "key": key, "value": todo, "if_version": stored["version"]}
        worker.trigger("state::set", change)
    except InvocationError as error:
        if error.code != "CONFLICT":
            raise
        return {"status_code": 409, "body": {"error": {"code": "CONFLICT", "message": "somebody else was faster"}}}
    return {"body": todo}


def remove(request: dict) -> dict:
    """Forget a todo."""
    worker.trigger("state::delete", {"scope": SCOPE, "key": request["path_params"]["id"]})
    return {"status_code": 204, "body": None}


def missing() -> dict:
    """Answer that there is no such todo."""
    return {"status_code": 404, "body": {"error": {"code": "NOT_FOUND", "message": "there is no such todo"}}}


for function, method, path, expects, returns in (
    (create, "POST", "/todos", request(body=fields("title")), TODO),
    (all_of_them, "GET", "/todos", request(query_params=LIMIT), {"type": "array", "items": TODO}),
    (one, "GET", "/todos/:id", request(path_params=ID), TODO),
    (change, "PATCH", "/todos/:id", request(path_params=ID, body=fields()), TODO),
    (remove, "DELETE", "/todos/:id", request(path_params=ID), {}),
):
    name = f"todo::{function.__name__}"
    worker.register_function(name, function, request_format=expects, response_format=answer(returns))
    config = {"api_path": path, "http_method": method}
    worker.register_trigger({"type": "http", "function_id": name, "config": config})
