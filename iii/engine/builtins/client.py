"""Calls that the engine itself makes and waits for: auth functions, hooks, middleware, checks of HTTP functions.

The caller of all of them is a peer like any other, without a transport: the client reads its outbox.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Raw

from iii.engine.routing.events import HttpFunctionRegistered, Notice
from iii.engine.routing.http_function_proxy import CHECK
from iii.engine.routing.peer import Peer
from iii.engine.transport.message_pump import MessagePump
from iii.errors import ErrorCode, InvocationError
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode_value
from iii.protocol.lines import MAX_LINE

# Errors that say something about the checking worker, and nothing about the function.
_INCONCLUSIVE = {
    *(ErrorCode.FUNCTION_NOT_FOUND, ErrorCode.WORKER_UNAVAILABLE, ErrorCode.INVOCATION_STOPPED),
    *(ErrorCode.OVERLOADED, ErrorCode.ENGINE_STOPPING, ErrorCode.TIMEOUT),
}


class EngineClient:
    """Calls functions in the engine's name. One peer makes all calls."""

    def __init__(self, pump: MessagePump) -> None:
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, asyncio.Future[m.InvocationResult]] = {}
        self._peer = Peer("gate", kind="engine", name="gate", max_line=4 * MAX_LINE, flush=self._read_outbox)
        pump.router.peer_table.attach(self._peer)

    async def call(self, function_id: str, data: Any, *, namespace: str | None = None, metadata: Raw = m.ABSENT) -> Raw:
        """Call a function and return its result as raw JSON. Raises `InvocationError` with its error."""
        router = self._pump.router
        id = router.calls.mint_id()
        answered = self._waiting[id] = self._loop.create_future()
        payload = data if isinstance(data, Raw) else Raw(encode_value(data))
        message = m.InvokeFunction(
            function_id, invocation_id=id, data=payload, metadata=metadata, namespace=namespace or "default"
        )
        router.receive(self._peer, message, b"", self._loop.time())
        del data, payload, message, metadata  # the router has the line: a large one must not be kept twice
        self._pump.turn()
        try:
            result = await answered
        except asyncio.CancelledError:
            router.receive(self._peer, m.Cancel(id), b"", self._loop.time())  # else the call is held until its end
            self._pump.turn()
            raise
        finally:
            del self._waiting[id]
        if not m.is_empty(result.error):
            body = decode_value(result.error, type=m.ErrorBody)
            raise InvocationError(body.code, body.message, details=body.details)
        return m.or_null(result.result)

    def _read_outbox(self) -> None:
        for message in self._pump.router.calls.take_messages(self._peer):
            if isinstance(message, m.InvocationResult):
                answered = self._waiting.get(message.invocation_id)
                if answered is not None and not answered.done():
                    answered.set_result(message)


class HttpFunctionCheck:
    """Whether functions that live behind a URL may be registered: the worker that makes the requests decides.

    A function that it refuses (an address inside the network, a secret that is not set) is withdrawn, with a line in
    the log. Without such a worker the function stays, and calls of it fail with an error that says what is missing.
    """

    def __init__(self, pump: MessagePump) -> None:
        self._pump = pump
        self._engine_client: EngineClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def on_registered(self, event: HttpFunctionRegistered) -> None:
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
