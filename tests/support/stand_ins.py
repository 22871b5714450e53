"""Stand-ins for what a standard worker is connected to: a worker that calls plain functions, and a binder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from iii import InvocationError, TriggerConfig


class Callee:
    """Stands for the Worker a provider fires through. `functions` maps ids to callables of the payload."""

    def __init__(self, **functions: Callable[[Any], Any]) -> None:
        self.functions = {name.replace("__", "::"): function for name, function in functions.items()}
        self.requests: list[dict[str, Any]] = []
        self.changed = asyncio.Event()

    async def trigger_async(self, request: Any, payload: Any = None) -> Any:
        """Record the request and call the function; `function_not_found` when there is none."""
        request = request if isinstance(request, dict) else {"function_id": request, "payload": payload}
        self.requests.append(request)
        name = request["function_id"]
        if name not in self.functions:
            raise InvocationError("function_not_found", f"Function '{name}' not found")
        result = self.functions[name](request["payload"])
        return await result if asyncio.iscoroutine(result) else result

    def payloads(self, function_id: str) -> list[Any]:
        """Return what a function was called with."""
        return [request["payload"] for request in self.requests if request["function_id"] == function_id]


def binding(function_id: str = "w::seen", config: Any = None, id: str = "t1", **fields: Any) -> TriggerConfig:
    """Return a binding as a provider is told of it."""
    return TriggerConfig(id, function_id, config, fields.get("metadata"), fields.get("namespace"))


def slow_step(name: str, order: list[str]) -> Callable[[Any], Awaitable[None]]:
    """Return a function that notes in `order` when it begins and ends, and lets others run meanwhile."""

    async def run(_: Any) -> None:
        order.append(f"{name} begins")
        for _ in range(5):
            await asyncio.sleep(0)
        order.append(f"{name} ends")

    return run


async def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Return the first truthy value of `condition`; AssertionError when there is none in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)  # between two looks
    return found
