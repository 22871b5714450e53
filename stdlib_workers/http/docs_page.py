"""The page at /docs: the OpenAPI document for people. Pure.

Written on the server, without a script: whatever a function or a schema is called, it is text here.
"""

from __future__ import annotations

from html import escape
from typing import Any

import orjson

POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
details { border: 1px solid #ddd; border-radius: 6px; margin: .5rem 0; padding: .5rem .8rem }
summary { cursor: pointer } code, pre { font: 13px/1.5 ui-monospace, monospace }
pre { background: #f6f6f6; padding: .6rem; border-radius: 4px; overflow-x: auto }
b { display: inline-block; min-width: 4.5rem } td, th { text-align: left; padding-right: 1.5rem } i { color: #777 }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } pre { background: #262626 }
details { border-color: #444 } }
"""


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
        parts += ["<h4>Body</h4>", _json(body["content"]["application/json"]["schema"])]
    parts += ["<h4>Answer</h4>", _json(operation["responses"]["2XX"]["content"]["application/json"]["schema"])]
    parts += ["<h4>Example</h4>", f"<pre>{escape(_example(path, method, origin, has_body=bool(body)))}</pre>"]
    head = f"<b>{escape(method.upper())}</b> <code>{escape(path)}</code> {summary} <i>{function}</i>"
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


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
