"""Whether functions that live behind a URL may be registered: the worker that makes the requests decides.

A function that it refuses (an address inside the network, a secret that is not set) is withdrawn, with a line in the
log. Without such a worker the function stays, and calls of it fail with an error that says what is missing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from iii.engine.builtins.client import EngineClient
from iii.engine.routing.events import HttpFunctionRegistered, Notice
from iii.engine.routing.http_function_proxy import CHECK
from iii.errors import ErrorCode, InvocationError

if TYPE_CHECKING:
    from iii.engine.transport.message_pump import MessagePump

# Errors that say something about the checking worker, and nothing about the function.
_INCONCLUSIVE = (
    ErrorCode.FUNCTION_NOT_FOUND,
    ErrorCode.WORKER_UNAVAILABLE,
    ErrorCode.INVOCATION_STOPPED,
    ErrorCode.OVERLOADED,
    ErrorCode.ENGINE_STOPPING,
    ErrorCode.TIMEOUT,
)


class HttpFunctionCheck:
    """Has every such registration checked, once."""

    def __init__(self, pump: MessagePump) -> None:
        self._pump = pump
        self._engine_client: EngineClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def on_registered(self, event: HttpFunctionRegistered) -> None:
        """Have the function checked, and withdraw it if it is refused."""
        self._engine_client = self._engine_client or EngineClient(self._pump)
        task = asyncio.get_running_loop().create_task(self._check(event, self._engine_client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self, event: HttpFunctionRegistered, engine_client: EngineClient) -> None:
        try:
            await engine_client.call(CHECK, {"function_id": event.function_id, "invocation": event.invocation})
        except InvocationError as error:
            router = self._pump.router
            function = router.registry.find(event.peer.namespace, event.function_id)
            # If it has been registered anew meanwhile, that registration has a check of its own.
            is_current = function is not None and bytes(function.declaration.invocation) == bytes(event.invocation)
            if error.code not in _INCONCLUSIVE and is_current:
                text = f"function {event.function_id} not registered: {error}"
                router.events.append(Notice(event.peer.name, text, error.code))
                router.registrations.withdraw(event.peer, event.function_id, f"refused: {error.message}")
                self._pump.turn()
