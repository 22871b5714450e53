"""Answers /openapi.json and /docs from the live registry, where no route without parameters has taken these paths.

The page is written on the server, without a script: whatever a function or a schema is called, it is text here.
"""

from __future__ import annotations

import asyncio
import os
from html import escape
from typing import Any

import orjson
from starlette.responses import HTMLResponse, Response

from iii import InvocationError
from stdlib_workers.http.openapi import document_from
from stdlib_workers.http.requests import Request, Trigger
from stdlib_workers.http.routes import Routes

# The engine's bound on ids in one question.
_BATCH = 32
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
details { border: 1px solid #ddd; border-radius: 6px; margin: .5rem 0; padding: .5rem .8rem }
summary { cursor: pointer } code, pre { font: 13px/1.5 ui-monospace, monospace }
pre { background: #f6f6f6; padding: .6rem; border-radius: 4px; overflow-x: auto }
b { display: inline-block; min-width: 4.5rem } td, th { text-align: left; padding-right: 1.5rem } i { color: #777 }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } pre { background: #262626 }
details { border-color: #444 } }
"""


class Documentation:
    """The document, made anew for each question."""

    def __init__(self, trigger: Trigger, routes: Routes) -> None:
        self._trigger = trigger
        self._routes = routes
        self._title = os.path.basename(os.environ.get("III_PROJECT", "")) or "iii"

    async def describe(self, _: Any = None) -> dict[str, Any]:
        """Return the OpenAPI 3.1 document of all routes that are live now."""
        functions = await self._functions()
        # Thousands of routes take a while, which no other request shall wait.
        return await asyncio.to_thread(document_from, self._title, tuple(self._routes), functions)

    async def __call__(self, request: Request, path: list[str]) -> Response | None:
        """Return the document or its page."""
        if path not in (["openapi.json"], ["docs"]):
            return None
        document = await self.describe()
        if path == ["openapi.json"]:
            content = orjson.dumps(document)
            return Response(content, headers={"cache-control": "no-cache"}, media_type="application/json")
        page = await asyncio.to_thread(page_from, document, f"http://{request.headers['host']}")
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def _functions(self) -> dict[str, dict[str, Any]]:
        ids = sorted({route.function_id for route in self._routes})
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), _BATCH):
            payload = {"function_ids": ids[start : start + _BATCH]}
            try:
                rows = (await self._trigger({"function_id": "engine::functions::info", "payload": payload}))[
                    "functions"
                ]
            except InvocationError:
                continue  # the routes are there all the same
            found.update({row["function_id"]: row for row in rows})
        return found


def page_from(document: dict[str, Any], origin: str) -> bytes:
    """Return the page as HTML; `origin` is what its examples call, such as `http://localhost:3111`."""
    operations = [
        _operation(path, method, operation, origin)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = escape(document["info"]["title"])
    content = "\n".join(operations) or "<p>No http trigger is bound yet.</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f'<h1>{title}</h1><p><a href="/openapi.json">openapi.json</a></p>{content}</html>'
    ).encode("utf-8", "replace")


def _operation(path: str, method: str, operation: dict[str, Any], origin: str) -> str:
    summary = escape(operation.get("summary", ""))
    function = escape(operation["x-function-id"])
    parts = [f"<p>{escape(operation.get('description', ''))}</p>", _parameters(operation["parameters"])]
    body = operation.get("requestBody")
    if body:
        parts += ["<h4>Body</h4>", _json(_schema_in(body))]
    parts += ["<h4>Answer</h4>", _json(_schema_in(next(iter(operation["responses"].values()))))]
    parts += ["<h4>Example</h4>", f"<pre>{escape(_example(path, method, origin, has_body=bool(body)))}</pre>"]
    head = f"<b>{escape(method.upper())}</b> <code>{escape(path)}</code> {summary} <i>{function}</i>"
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _schema_in(part: dict[str, Any]) -> Any:
    """Return the schema of a body in the first of its content types."""
    bodies: dict[str, dict[str, Any]] = part.get("content", {})
    return next((body.get("schema") for body in bodies.values()), None)


def _parameters(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td><code>{escape(row['name'])}</code><td>{escape(row['in'])}"
        f"<td>{escape(str(row['schema'].get('type', '')))}<td>{'required' if row['required'] else ''}"
        for row in rows
    )
    return f"<table><tr><th>parameter<th>in<th>type<th>{cells}</table>"


def _json(schema: Any) -> str:
    return f"<pre>{escape(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())}</pre>" if schema else "<p>any</p>"


def _example(path: str, method: str, origin: str, *, has_body: bool) -> str:
    body = " -H 'content-type: application/json' -d '{}'" if has_body else ""
    return f"curl -X {method.upper()} '{origin}{path}'{body}"
