"""Asks the http worker's application without a socket, with a function that stands in for all of the engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from stdlib_workers.http.access import AccessLog
from stdlib_workers.http.application import Application
from stdlib_workers.http.options import parse_options
from stdlib_workers.http.origins import Origins, hosts_for
from stdlib_workers.http.routes import Route, Routes

HOST = (b"host", b"localhost:3111")
JSON_BODY = (b"content-type", b"application/json")


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_complete: bool = True

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        code: str = self.json["error"]["code"]
        return code


@dataclass
class Site:
    """An application with routes. `functions` are called by id with the payload; `calls` notes every request."""

    functions: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)  # the messages of the last answer

    def __post_init__(self) -> None:
        options = parse_options(self.config)
        self.routes = Routes()
        self.application = Application(self._trigger, self.routes, options, AccessLog(is_on=options.access_log))
        self.application.origins = Origins(hosts_for(options.host, 3111, options.hosts), options.origins)

    def bind(self, text: str, function_id: str = "f::f", **fields: Any) -> None:
        method, pattern = text.split(" ")
        self.routes.add(Route(f"t{len(self.routes)}", function_id, method, pattern, **fields))

    async def _trigger(self, call: dict[str, Any]) -> Any:
        self.calls.append(call)
        result = self.functions[call["function_id"]](call["payload"])
        return await result if asyncio.iscoroutine(result) else result

    def ask(
        self, text: str, body: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = (), *, host: Any = HOST
    ) -> Answer:
        return asyncio.run(self.ask_async(text, body, headers, host=host))

    async def ask_async(
        self,
        text: str,
        body: bytes = b"",
        headers: Iterable[tuple[bytes, bytes]] = (),
        *,
        host: Any = HOST,
        leaves: asyncio.Event | None = None,
    ) -> Answer:
        """Ask, and leave before the answer's end when `leaves` is set."""
        method, _, target = text.partition(" ")
        path, _, query = target.partition("?")
        length = [(b"content-length", b"%d" % len(body))] if body else []
        scope = {
            "type": "http",
            "path": unquote(path),
            "method": method,
            "http_version": "1.1",
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [*([host] if host else []), *length, *headers],
        }
        sent = self.sent = []

        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await (asyncio.Future() if leaves is None else leaves.wait())
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.application(scope, receive, send)
        start, *parts = sent
        answered = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        is_complete = bool(parts) and not parts[-1].get("more_body", False)
        return Answer(start["status"], answered, b"".join(part["body"] for part in parts), is_complete)
