"""What an MCP client can read: pages of the documentation, and what the tables open of logs, traces and state.

URIs are `iii://KIND` and `iii://KIND/NAME`, names percent-encoded: `iii://docs/queue`, `iii://logs/error`,
`iii://traces/TRACE_ID`, `iii://state/SCOPE` and `iii://state/SCOPE/KEY`.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, unquote

from mcp.types import Resource, ResourceTemplate

from stdlib_workers.mcp import documents
from stdlib_workers.mcp.introspection import Call
from stdlib_workers.mcp.options import Options

SCHEME = "iii://"
JSON, MARKDOWN = "application/json", "text/markdown"
# Rows of logs and traces, keys of a scope; and scopes that are listed.
MAX_ROWS = 100
MAX_SCOPES = 500
# Bytes of values that one page of a scope may have; a result is cut far below.
MAX_PAGE_BYTES = 4 << 20
LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")
MAX_URI = 4096


class NoSuchResource(Exception):
    """There is no such resource, or the tables do not open it: a client learns no difference."""


class Resources:
    """Lists and reads. `call` calls a function of the project."""

    def __init__(self, call: Call, options: Options) -> None:
        self._call = call
        self._options = options

    async def listed(self) -> list[Resource]:
        """Return the resources with a name of their own, those of state one for each scope."""
        rows = await asyncio.to_thread(documents.pages)
        found = [
            Resource(uri=f"{SCHEME}docs/{name}", name=f"docs/{name}", description=text, mime_type=MARKDOWN)
            for name, text in rows.items()
        ]
        for kind, text in (("logs", "The newest log records."), ("traces", "The newest traces.")):
            if kind in self._options.resources:
                found.append(Resource(uri=f"{SCHEME}{kind}", name=kind, description=text, mime_type=JSON))
        if self._options.state:
            scopes = await self._scopes()
            found += [
                Resource(
                    uri=f"{SCHEME}state/{quote(scope, safe='')}",
                    name=f"state/{scope}",
                    description=f"The first {MAX_ROWS} entries of this scope.",
                    mime_type=JSON,
                )
                for scope in scopes[:MAX_SCOPES]
            ]
        return found

    def templates(self) -> list[ResourceTemplate]:
        """Return the forms of URIs that take a name."""
        forms = []
        if "logs" in self._options.resources:
            forms.append(("logs/{level}", f"The newest log records of a level: {', '.join(LEVELS)}."))
        if "traces" in self._options.resources:
            forms.append(("traces/{trace_id}", "One trace as a tree of calls."))
        if self._options.state:
            forms.append(("state/{scope}", f"The first {MAX_ROWS} entries of a scope."))
            forms.append(("state/{scope}/{key}", "One value."))
        return [
            ResourceTemplate(uri_template=f"{SCHEME}{form}", name=form, description=text, mime_type=JSON)
            for form, text in forms
        ]

    async def read(self, uri: str) -> tuple[Any, str]:
        """Return what a URI stands for, a text or a JSON value, and its media type. NoSuchResource."""
        if not uri.startswith(SCHEME) or len(uri) > MAX_URI:
            raise NoSuchResource(uri)
        kind, *names = map(unquote, uri.removeprefix(SCHEME).split("/"))
        if kind == "docs" and (text := await asyncio.to_thread(documents.page, "/".join(names))):
            return text, MARKDOWN
        if kind == "state" and 1 <= len(names) <= 2 and self._options.may_read(names[0]):
            return await self._state(*names), JSON
        if kind in self._options.resources and len(names) <= 1:
            return await (self._logs(*names) if kind == "logs" else self._traces(*names)), JSON
        raise NoSuchResource(uri)

    async def _scopes(self) -> list[str]:
        scopes = (await self._call({"function_id": "state::list_groups", "payload": {}}))["groups"]
        return [scope for scope in scopes if self._options.may_read(scope)]

    async def _state(self, scope: str, key: str | None = None) -> Any:
        if key is not None:
            return await self._call({"function_id": "state::get", "payload": {"scope": scope, "key": key}})
        payload = {"scope": scope, "limit": MAX_ROWS, "max_bytes": MAX_PAGE_BYTES}
        page = await self._call({"function_id": "state::list_entries", "payload": payload})
        return {"entries": page["entries"], "total": page["total"]}

    async def _logs(self, level: str | None = None) -> Any:
        if level is not None and level not in LEVELS:
            raise NoSuchResource(level)
        payload = {"limit": MAX_ROWS, **({} if level is None else {"severity_text": level})}
        return (await self._call({"function_id": "engine::logs::list", "payload": payload}))["logs"]

    async def _traces(self, trace_id: str | None = None) -> Any:
        if trace_id is not None:
            return await self._call({"function_id": "engine::traces::tree", "payload": {"trace_id": trace_id}})
        payload = {"limit": MAX_ROWS, "sort_order": "desc"}
        return (await self._call({"function_id": "engine::traces::list", "payload": payload}))["spans"]
