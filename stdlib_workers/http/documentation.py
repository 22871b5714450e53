"""Answers /openapi.json and /docs from the live registry, where no route has taken these paths."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from iii import InvocationError
from stdlib_workers.http.calls import Trigger
from stdlib_workers.http.docs_page import POLICY, page_from
from stdlib_workers.http.openapi import document_from
from stdlib_workers.http.replies import Reply, json_reply
from stdlib_workers.http.requests import Request
from stdlib_workers.http.routes import Routes

# The engine's bound on ids in one question.
_BATCH = 32


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

    async def answer(self, request: Request, path: list[str]) -> Reply | None:
        """Return the document or its page."""
        if path == ["openapi.json"]:
            return json_reply(200, await self.describe(), (b"cache-control", b"no-cache"))
        if path == ["docs"]:
            document = await self.describe()
            page = await asyncio.to_thread(page_from, document, f"http://{request.headers['host']}")
            headers = [
                (b"content-type", b"text/html; charset=utf-8"),
                (b"content-security-policy", POLICY),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
            ]
            return Reply(200, headers, page)
        return None

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
