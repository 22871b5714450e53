"""WebSocket endpoints, the trigger type `websocket`: a function hears of connect, message and close, in that order.

What it returns for a message goes back; whoever has the channel that came with `connect` may write at any time. Events
of one socket are told one after the other, so that a slow function holds back its client and nobody else.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from iii import InvocationError
from stdlib_workers.http.access import AccessLog
from stdlib_workers.http.application import Application
from stdlib_workers.http.calls import Terms, call_function
from stdlib_workers.http.channels import ChannelBroken, ChannelEnd, items_of
from stdlib_workers.http.failures import Refusal, refusal_from, reply_to
from stdlib_workers.http.intake import Message, Receive, request_from
from stdlib_workers.http.patterns import BadPath, split_path
from stdlib_workers.http.requests import Request, payload_from, trace_from
from stdlib_workers.http.routes import Match, Routes

Send = Callable[[Message], Awaitable[None]]

# Stands for the method in the table of routes.
METHOD = "WEBSOCKET"
INTERNAL_ERROR = 1011


class Sockets:
    """Serves WebSocket connections from its own routes, with the host and origin rules of the application."""

    def __init__(self, application: Application, routes: Routes, timeout: float, log: AccessLog) -> None:
        self._application = application
        self._routes = routes
        self._timeout = timeout
        self._log = log

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection, from its handshake to its end; other requests go to the application."""
        if scope["type"] != "websocket":
            await self._application(scope, receive, send)
            return
        request = request_from({**scope, "method": "GET"})
        await receive()
        try:
            socket = await self._admit(request, send)
        except Refusal as refusal:
            await _refuse(send, refusal, request)
            return
        await socket.serve(receive)
        self._log.note((METHOD, request.path), socket.code, socket.match.route.function_id, 0.0)

    async def _admit(self, request: Request, send: Send) -> Socket:
        self._application.origins.check(request)
        try:
            found = self._routes.find(METHOD, split_path(request.path))
        except BadPath as error:
            raise Refusal(400, "BAD_PATH", str(error)) from None
        if not isinstance(found, Match):
            raise Refusal(404, "NOT_FOUND", "no websocket trigger is bound to this path")
        socket = Socket(self._application, found, send, self._timeout)
        await socket.connect(request)
        return socket


class Socket:
    """One connection. `code` is how it was closed."""

    def __init__(self, application: Application, match: Match, send: Send, timeout: float) -> None:
        self._application = application
        self.match = match
        self._send = send
        self._timeout = timeout
        self._reader: ChannelEnd | None = None
        self.code = 1000

    async def connect(self, request: Request) -> None:
        """Ask the function and accept. Refusal when it says false or fails."""
        payload = payload_from(request, self.match)
        payload["trigger"]["type"] = "websocket"
        self._id, self._trace = request.request_id, trace_from(request)
        channels = self._application.channels
        if channels is not None:
            try:
                writer, reader = await channels.make()
                self._reader = await channels.open(reader)
            except ChannelBroken as error:
                raise Refusal(500, "channel_broken", str(error)) from None
            payload["response"] = writer
        try:
            verdict = await self._tell("connect", payload)
            if verdict is False:
                raise Refusal(403, "FORBIDDEN", f"{self.match.route.function_id} does not accept this connection")
        except InvocationError as error:
            raise refusal_from(error) from None
        headers = [(b"traceparent", self._trace["traceparent"].encode())]
        await self._send({"type": "websocket.accept", "headers": headers})

    async def serve(self, receive: Receive) -> None:
        """Pass on what comes, both ways, until the client or a failure ends it."""
        writing = asyncio.ensure_future(self._write())
        try:
            while (message := await receive())["type"] == "websocket.receive":
                await self._answer(message)
            self.code = message.get("code", self.code)
            await self._tell("close", {"code": self.code, "reason": message.get("reason") or ""})
        except InvocationError as error:
            # The client learns that it was our side, and nothing of how.
            self.code = INTERNAL_ERROR
            await self._send({"type": "websocket.close", "code": self.code, "reason": error.code[:100]})
        finally:
            writing.cancel()
            if self._reader is not None:
                await self._reader.close()

    async def _answer(self, message: Message) -> None:
        text, data = message.get("text"), message.get("bytes")
        body = {"data": text} if text is not None else {"data_base64": b64encode(data or b"").decode()}
        result = await self._tell("message", body)
        if result is not None:
            await self._put(result if isinstance(result, str) else orjson.dumps(result).decode())

    async def _write(self) -> None:
        if self._reader is not None:
            async for item in items_of(self._reader):
                await self._put(item)

    async def _put(self, item: str | bytes) -> None:
        key = "text" if isinstance(item, str) else "bytes"
        await self._send({"type": "websocket.send", key: item})

    async def _tell(self, event: str, fields: dict[str, Any]) -> Any:
        payload = {"event": event, "connection_id": self._id, **fields}
        route = self.match.route
        trigger = self._application.trigger
        return await call_function(trigger, route.function_id, payload, route, Terms(self._timeout, self._trace))


async def _refuse(send: Send, refusal: Refusal, request: Request) -> None:
    reply = reply_to(refusal, request.request_id)
    length = (b"content-length", b"%d" % len(reply.body))
    start = {"type": "websocket.http.response.start", "status": reply.status, "headers": [*reply.headers, length]}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": reply.body})
