"""The functions that are tools right now: asked of the engine for each request, so that changes count at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from iii import TriggerRequestInput, Worker
from iii.declarations import load_declarations
from stdlib_workers.mcp.introspection import ENGINE_TOOLS
from stdlib_workers.mcp.options import Options
from stdlib_workers.mcp.tools import FunctionTool, Schemas, chosen_functions, input_schema

DECLARED = load_declarations(Path(__file__).parent)

# How long the engine and the standard workers may take for what they list.
LIST_TIMEOUT_MS = 10_000
# The most functions that `engine::functions::info` describes at a time.
_BATCH = 32


class Catalog:
    """Finds tools. InvocationError of every method: the engine does not answer."""

    def __init__(self, worker: Worker, options: Options) -> None:
        self._worker = worker
        self._options = options

    async def call(self, request: TriggerRequestInput) -> Any:
        """Call a function that lists or reads something."""
        return await self._worker.trigger_async({"timeout_ms": LIST_TIMEOUT_MS, **request})

    async def tools(self) -> dict[str, FunctionTool]:
        """Return the described functions that the tables choose, by the names of their tools."""
        return (await self._chosen())[0]

    async def schemas(self, tools: list[FunctionTool]) -> dict[str, Schemas]:
        """Return the schemas of each function by the tool's name; without any when it is gone."""
        found: dict[str, Schemas] = {}
        for namespace in sorted({tool.namespace for tool in tools}):
            there = [tool for tool in tools if tool.namespace == namespace]
            for start in range(0, len(there), _BATCH):
                batch = there[start : start + _BATCH]
                payload = {"function_ids": [tool.function_id for tool in batch], "namespace": namespace}
                rows = (await self.call({"function_id": "engine::functions::info", "payload": payload}))["functions"]
                schemas = {
                    row["function_id"]: Schemas(row.get("request_schema"), row.get("response_schema")) for row in rows
                }
                found |= {tool.name: schemas.get(tool.function_id, Schemas()) for tool in batch}
        return found

    async def describe(self, _: Any) -> dict[str, Any]:
        """Return which functions are tools, and which are chosen but lack a description or a schema."""
        tools, without = await self._chosen()
        schemas = await self.schemas(list(tools.values()))
        has_schema = {name: input_schema(found.payload) is not None for name, found in schemas.items()}
        return {
            "tools": {name: tools[name].function_id for name in sorted(tools) if has_schema[name]},
            "without_description": sorted(without),
            "without_schema": sorted(tools[name].function_id for name in tools if not has_schema[name]),
        }

    async def _chosen(self) -> tuple[dict[str, FunctionTool], list[str]]:
        found = await self.call({"function_id": "engine::functions::list", "payload": {}})
        return chosen_functions(found["functions"], self._options, ENGINE_TOOLS)


def follow_functions(worker: Worker, service: str, look: Callable[[Any], Awaitable[None]]) -> None:
    """Have `look` called when functions come and go, as the function `SERVICE::on-functions-available`."""
    function_id = f"{service}::on-functions-available"
    declared = DECLARED.functions["mcp::on-functions-available"]
    worker.register_function(function_id, look, metadata={"internal": True}, **declared)
    worker.register_trigger({"type": "engine::functions-available", "function_id": function_id, "config": {}})
