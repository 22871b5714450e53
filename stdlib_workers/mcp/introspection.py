"""The tools for agents that build with iii: workers, functions, failed calls, and the documentation.

They are there with `introspection = true` only, since they tell about all of the project, its failures with payloads
and stack traces as the observability worker keeps them, without secrets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from iii import InvocationError, TriggerRequestInput
from stdlib_workers.mcp import documents

Call = Callable[[TriggerRequestInput], Awaitable[Any]]
Arguments = Mapping[str, Any]

MAX_ROWS = 200
_WORKER = (
    *("name", "namespace", "state", "runtime", "generation", "restarts", "function_count", "active_invocations"),
    *("last_exit", "last_error"),
)


@dataclass(frozen=True)
class EngineTool:
    """One of these tools; `answer(call, arguments)` returns its result. Its arguments are strings and integers."""

    name: str
    description: str
    answer: Callable[[Call, Arguments], Awaitable[Any]]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    def input_schema(self) -> dict[str, Any]:
        """Return the schema of the arguments."""
        schema = {"type": "object", "properties": dict(self.arguments), "additionalProperties": False}
        return {**schema, "required": list(self.required)} if self.required else schema

    async def run(self, call: Call, arguments: Arguments) -> Any:
        """Return the result. InvocationError `invalid_payload` for arguments that do not fit."""
        for name in self.required:
            if name not in arguments:
                raise InvocationError("invalid_payload", f"{self.name}: {name} is missing")
        for name, value in arguments.items():
            wanted = self.arguments.get(name, {}).get("type")
            if wanted is None:
                raise InvocationError("invalid_payload", f"{self.name} takes no {name}; it takes {_listed(self)}")
            if not (type(value) is int and value > 0 if wanted == "integer" else isinstance(value, str)):
                words = "a whole number from 1 on" if wanted == "integer" else "a string"
                raise InvocationError("invalid_payload", f"{self.name}: {name} must be {words}")
        return await self.answer(call, arguments)


def _listed(tool: EngineTool) -> str:
    return ", ".join(tool.arguments) or "no arguments"


async def workers(call: Call, _: Arguments) -> Any:
    """Return what is known of each worker: how it is, and its last error."""
    rows = (await call({"function_id": "engine::workers::list", "payload": {}}))["workers"]
    return [{name: row[name] for name in _WORKER if row.get(name) is not None} for row in rows]


async def functions(call: Call, arguments: Arguments) -> Any:
    """Return id, worker and description of each function, those that `search` fits first."""
    filters = {name: arguments[name] for name in ("search", "worker") if name in arguments}
    rows = (await call({"function_id": "engine::functions::list", "payload": filters}))["functions"]
    shown = [
        {name: row[name] for name in ("function_id", "worker_name", "description", "metadata") if row.get(name)}
        for row in rows[:MAX_ROWS]
    ]
    more = len(rows) - len(shown)
    return [*shown, f"{more} more functions; narrow them down with search or worker"] if more else shown


async def function(call: Call, arguments: Arguments) -> Any:
    """Return one function's schemas, its source and its triggers."""
    return await call({"function_id": "engine::functions::info", "payload": {"function_id": arguments["function_id"]}})


async def failures(call: Call, arguments: Arguments) -> Any:
    """Return the calls that failed last, with code, message, payload and stack trace."""
    query = {
        "status": "error",
        "search_all_spans": True,
        "sort_order": "desc",
        "limit": min(arguments.get("limit", 20), MAX_ROWS),
    }
    if "function_id" in arguments:
        query["attributes"] = [["iii.function.id", arguments["function_id"]]]
    spans = (await call({"function_id": "engine::traces::list", "payload": query}))["spans"]
    return [failure_row(span) for span in spans]


def failure_row(span: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an agent needs of a failed span. Pure."""
    facts = dict(span["attributes"])
    for event in span["events"]:
        facts.update(event["attributes"])
    row = {
        "function_id": facts.get("iii.function.id") or span["name"],
        "code": facts.get("error.code"),
        "message": span.get("status_description") or facts.get("exception.message"),
        "worker": span["service_name"],
        "caller": facts.get("iii.caller.function") or facts.get("iii.caller.worker"),
        "payload": facts.get("iii.payload.json"),
        "stack": facts.get("exception.stacktrace"),
        "start_time_unix_nano": span["start_time_unix_nano"],
        "trace_id": span["trace_id"],
    }
    return {name: value for name, value in row.items() if value is not None}


async def docs(_: Call, arguments: Arguments) -> Any:
    """Return a page of the documentation, or the list of pages."""
    if "page" not in arguments:
        return await asyncio.to_thread(documents.pages)
    text = await asyncio.to_thread(documents.page, arguments["page"])
    if text is None:
        raise InvocationError("not_found", f"there is no page {arguments['page']!r:.80}; without page you get the list")
    return text


ENGINE_TOOLS = {
    tool.name: tool
    for tool in (
        EngineTool("iii_workers", "List the workers of the project: their state, restarts and last errors.", workers),
        EngineTool(
            "iii_functions",
            "List the functions of the project.",
            functions,
            {
                "search": {"type": "string", "description": "Part of an id or a description."},
                "worker": {"type": "string", "description": "Only functions of this worker."},
            },
        ),
        EngineTool(
            "iii_function",
            "Show one function: description, request and response schema, source, triggers.",
            function,
            {"function_id": {"type": "string", "description": "For example orders::create."}},
            ("function_id",),
        ),
        EngineTool(
            "iii_failures",
            "List the calls that failed last, newest first: error code, message, payload, stack trace, trace id.",
            failures,
            {
                "function_id": {"type": "string", "description": "Only calls of this function."},
                "limit": {"type": "integer", "minimum": 1, "description": f"How many: 20, at most {MAX_ROWS}."},
            },
        ),
        EngineTool(
            "iii_docs",
            "Read a page of iii's documentation; without page, list the pages.",
            docs,
            {"page": {"type": "string", "description": "A name of the list, for example queue."}},
        ),
    )
}
