"""Calls that the engine itself makes and waits for: auth functions, hooks, middleware, checks of HTTP functions.

The caller of all of them is a peer like any other, without a transport: the client reads its outbox.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Raw

from iii.engine.routing.peer import Peer
from iii.engine.transport.message_pump import MessagePump
from iii.errors import InvocationError
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode_value
from iii.protocol.lines import MAX_LINE


class EngineClient:
    """Calls functions in the engine's name. One peer makes all calls."""

    def __init__(self, pump: MessagePump) -> None:
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[str, asyncio.Future[m.InvocationResult]] = {}
        self._peer = Peer("gate", kind="engine", name="gate", max_line=4 * MAX_LINE, flush=self._read_outbox)
        pump.router.peer_table.attach(self._peer)

    def __repr__(self) -> str:
        return f"<EngineClient {len(self._waiting)} waiting>"

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
        self._pump.turn()
        try:
            result = await answered
        finally:
            del self._waiting[id]
        if not m.is_empty(result.error):
            body = decode_value(result.error, type=m.ErrorBody)
            raise InvocationError(body.code, body.message, details=body.details)
        return m.NULL if result.result is m.ABSENT else result.result

    def _read_outbox(self) -> None:
        for message in self._pump.router.calls.take_messages(self._peer):
            if isinstance(message, m.InvocationResult):
                answered = self._waiting.get(message.invocation_id)
                if answered is not None and not answered.done():
                    answered.set_result(message)
