"""WebSocket endpoints, the trigger type `websocket`: a function hears of connect, message and close, in that order.

What it returns for a message goes back; whoever has the channel that came with `connect` may write at any time. Events
of one socket are told one after the other, so that a slow function holds back its client and nobody else.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import suppress
from typing import Any

import orjson
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from iii import InvocationError
from stdlib_workers.http.access import AccessLog, Outcome
from stdlib_workers.http.application import Application
from stdlib_workers.http.calls import Terms, call_function
from stdlib_workers.http.channels import ChannelBroken, ChannelEnd
from stdlib_workers.http.replies import Refusal, refusal_from, reply_to
from stdlib_workers.http.requests import Message, Receive, Request, Send, payload_from, trace_from
from stdlib_workers.http.routes import BadPath, Match, Routes, split_path

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
        request = Request(scope, receive, 0)
        outcome = Outcome("GET", request.path, *trace_from(request.headers))
        client = WebSocket(scope, receive, send)
        try:
            self._application.origins.check(request)
            try:
                found = self._routes.find(METHOD, split_path(request.path))
            except BadPath as error:
                raise Refusal(400, "BAD_PATH", str(error)) from None
            if not isinstance(found, Match):
                raise Refusal(404, "NOT_FOUND", "no websocket trigger is bound to this path")
            outcome.function_id = found.route.function_id
            outcome.route = found.route.template
            socket = Socket(self._application, found, client, self._timeout, outcome.trace)
            await socket.connect(request)
        except Refusal as refusal:
            reply = reply_to(refusal, request.id)
            headers = {name.decode(): value.decode() for name, value in reply.headers}
            await client.send_denial_response(Response(reply.body, reply.status, headers))
            outcome.status = reply.status
        else:
            outcome.status = await socket.serve()
        self._log.note(outcome)


class Socket:
    """One connection."""

    def __init__(
        self, application: Application, match: Match, client: WebSocket, timeout: float, trace: dict[str, str]
    ) -> None:
        self._application = application
        self._match = match
        self._client = client
        self._timeout = timeout
        self._trace = trace
        self._reader: ChannelEnd | None = None

    async def connect(self, request: Request) -> None:
        """Ask the function and accept. Refusal when it says false or fails."""
        payload = payload_from(request, self._match, "websocket")
        self._id = request.id
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
        except InvocationError as error:
            raise refusal_from(error) from None
        if verdict is False:
            raise Refusal(403, "FORBIDDEN", f"{self._match.route.function_id} does not accept this connection")
        await self._client.accept(headers=[(b"traceparent", self._trace["traceparent"].encode())])

    async def serve(self) -> int:
        """Pass on what comes, both ways, until the client or a failure ends it; return the code of the close."""
        writing = asyncio.ensure_future(self._write())
        try:
            while (message := await self._client.receive())["type"] == "websocket.receive":
                await self._answer(message)
            code: int = message.get("code", 1000)
            await self._tell("close", {"code": code, "reason": message.get("reason") or ""})
            return code
        except InvocationError as error:
            # The client learns that it was our side, and nothing of how.
            with suppress(WebSocketDisconnect, RuntimeError):
                await self._client.close(INTERNAL_ERROR, error.code[:100])
            return INTERNAL_ERROR
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
        while self._reader is not None and (item := await self._reader.receive()) is not None:
            await self._put(item)

    async def _put(self, item: str | bytes) -> None:
        # Once the client has gone, what it is told is lost, and the function hears of the close next.
        with suppress(WebSocketDisconnect, RuntimeError):
            await (self._client.send_text(item) if isinstance(item, str) else self._client.send_bytes(item))

    async def _tell(self, event: str, fields: dict[str, Any]) -> Any:
        payload = {"event": event, "connection_id": self._id, **fields}
        route = self._match.route
        terms = Terms(self._timeout, self._trace)
        return await call_function(self._application.trigger, route.function_id, payload, route, terms)
