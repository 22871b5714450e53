"""A WebSocket endpoint, the trigger type `websocket`: its function hears of connect, message and close, in that order.

What it returns for a message goes back; whoever has the channel that came with `connect` may write at any time. Events
of one socket are told one after the other, so that a slow function holds back its client and nobody else.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import suppress
from typing import Any

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from stdlib_workers.http.channels import ChannelEnd, Channels
from stdlib_workers.http.replies import Refusal, encode, refusal_of
from stdlib_workers.http.requests import Request, Trigger

INTERNAL_ERROR = 1011


class Socket:
    """One connection: `connect`, then `serve`; `close` in any case. Each event may take `seconds`."""

    def __init__(self, trigger: Trigger, request: Request, client: WebSocket, seconds: float) -> None:
        self._trigger = trigger
        self._request = request
        self._client = client
        self._seconds = seconds
        self._reader: ChannelEnd | None = None
        self._opening: dict[str, Any] = {}  # the request that opened it

    async def connect(self, payload: dict[str, Any], channels: Channels | None) -> None:
        """Ask the function and accept. Refusal when it says false or fails."""
        if channels is not None:
            payload["response"], reader = await channels.make()
            self._reader = await channels.open(reader)
        self._opening = {key: value for key, value in payload.items() if key != "response"}
        if await self._tell("connect", payload) is False:
            text = f"{self._request.function_id} does not accept this connection"
            raise Refusal(403, "FORBIDDEN", text)
        await self._client.accept(headers=[(b"traceparent", self._request.trace["traceparent"].encode())])

    async def serve(self) -> int:
        """Pass on what comes, both ways, until the client ends it; return its code. Refusal when the function fails."""
        writing = asyncio.ensure_future(self._write())
        try:
            while (message := await self._client.receive())["type"] == "websocket.receive":
                await self._answer(message)
            code: int = message.get("code", 1000)
            await self._tell("close", {"code": code, "reason": message.get("reason") or ""})
            return code
        except Refusal as refusal:
            # The client learns that it was our side, and nothing of how.
            with suppress(WebSocketDisconnect, RuntimeError):
                await self._client.close(INTERNAL_ERROR, refusal.code[:100])
            self._request.status = INTERNAL_ERROR
            raise
        finally:
            writing.cancel()

    async def close(self) -> None:
        """Let go of the channel."""
        if self._reader is not None:
            await self._reader.close()

    async def _answer(self, message: Message) -> None:
        text, data = message.get("text"), message.get("bytes")
        body = {"data": text} if text is not None else {"data_base64": b64encode(data or b"").decode()}
        result = await self._tell("message", body)
        if result is not None:
            await self._put(result if isinstance(result, str) else encode(result, "the answer").decode())

    async def _write(self) -> None:
        while self._reader is not None and (item := await self._reader.receive()) is not None:
            await self._put(item)

    async def _put(self, item: str | bytes) -> None:
        # Once the client has gone, what it is told is lost, and the function hears of the close next.
        with suppress(WebSocketDisconnect, RuntimeError):
            await (self._client.send_text(item) if isinstance(item, str) else self._client.send_bytes(item))

    async def _tell(self, event: str, fields: dict[str, Any]) -> Any:
        payload: dict[str, Any] = {"event": event, "connection_id": self._request.id, **fields}
        arguments = None if self._request.route is None else self._request.route.arguments
        if arguments is not None:
            # The same parameters are made of each event, and those of the path and the query stay what they were.
            payload, found = arguments.read({**self._opening, **payload})
            if found:
                raise refusal_of(found)
        self._request.deadline = asyncio.get_running_loop().time() + self._seconds
        return await self._request.call(self._trigger, self._request.function_id, payload)
