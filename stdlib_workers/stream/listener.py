"""The WebSocket listener on port 3112: admission, the auth function, and three tasks for each socket.

Any path is accepted, since subscriptions are messages; the auth function gets the path. Without an auth function, the
client must run as the engine's user or have its token: the engine checks it as it does on its own listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from iii import InvocationError, Logger, TriggerRequestInput
from iii.failure_text import unnamed
from stdlib_workers.stream.admission import check_payload_from, names_of, refusal, request_from
from stdlib_workers.stream.hub import Subscriber
from stdlib_workers.stream.options import DEFAULT_PORT, Options
from stdlib_workers.stream.session import Services, Session

MAX_SOCKETS = 4096
# A join is a few hundred bytes.
MAX_MESSAGE = 1024 * 1024
# From the default port on, when it is taken.
PORTS_TRIED = 20
# Checks whether a connection comes from the engine's user, or has its token.
CHECK = "engine::connections::check"
# Says which pages the project's http worker serves.
ORIGINS = "http::origins"
ORIGINS_TIMEOUT_MS = 5000
# A socket that does not answer a close by then is cut off.
CLOSE_TIMEOUT = 1.0


class Listener:
    """One listening address and its sockets."""

    def __init__(self, services: Services, options: Options) -> None:
        self._services = services
        self._options = options
        self._contexts: WeakKeyDictionary[ServerConnection, Any] = WeakKeyDictionary()
        self._subprotocols: WeakKeyDictionary[ServerConnection, str | None] = WeakKeyDictionary()
        self._log = Logger(service_name="stream")
        self._server: Server | None = None

    async def open(self) -> int:
        """Listen, and return the port. OSError when the address cannot be had."""
        named = self._options.port
        for port in range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED) if named is None else (named,):
            try:
                self._server = await serve(
                    self._serve,
                    self._options.host,
                    port,
                    process_request=self._admit,
                    process_response=self._confirm,
                    max_size=MAX_MESSAGE,
                    compression=None,
                    close_timeout=CLOSE_TIMEOUT,
                )
                return self._port()
            except OSError:
                if named is not None:
                    raise
        raise OSError(f"{PORTS_TRIED} ports from {DEFAULT_PORT} on are taken")

    async def close(self) -> None:
        """Stop listening and close every socket."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def _port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse a handshake with a response, or let it go on with None."""
        headers = request.headers
        names = names_of(self._options.host, self._port())
        origins = headers.get_all("Origin")
        allowed = await self._allowed_origins() if origins else ()
        reason = refusal(headers.get_all("Host"), origins, names, allowed)
        if reason is not None:
            return connection.respond(HTTPStatus.FORBIDDEN, f"{reason}\n")
        if self._server is not None and len(self._server.connections) > MAX_SOCKETS:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"there are {MAX_SOCKETS} sockets already\n")
        if self._options.auth_function is not None:
            return await self._authorize(connection, request, self._options.auth_function)
        return await self._check_user(connection, request)

    async def _allowed_origins(self) -> Collection[str]:
        if self._options.origins is not None:
            return self._options.origins
        request: TriggerRequestInput = {"function_id": ORIGINS, "payload": {}, "timeout_ms": ORIGINS_TIMEOUT_MS}
        try:
            # Asked each time: the http worker may be on another port since its last restart.
            answer = await self._services.worker.trigger_async(request)
        except InvocationError:
            return ()  # a project without pages
        return [str(origin) for origin in answer] if isinstance(answer, list) else ()

    async def _check_user(self, connection: ServerConnection, request: Request) -> Response | None:
        addresses = connection.remote_address, connection.local_address
        payload = check_payload_from(request.path, request.headers, *addresses)
        try:
            answer = await self._services.worker.trigger_async({"function_id": CHECK, "payload": payload})
        except InvocationError as error:
            self._log.warn(f"the engine does not say who connects, so nobody gets in: {error}")
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "try again\n")
        if not answer["allowed"]:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "connect as the engine's user, or show its token\n")
        self._subprotocols[connection] = answer["subprotocol"]
        return None

    async def _confirm(self, connection: ServerConnection, _: Request, response: Response) -> None:
        """Confirm the subprotocol that carried the token: a browser insists on it."""
        subprotocol = self._subprotocols.pop(connection, None)
        if subprotocol is not None and response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol

    async def _authorize(self, connection: ServerConnection, request: Request, function_id: str) -> Response | None:
        payload = request_from(request.path, request.headers.raw_items(), connection.remote_address)
        try:
            result = await self._services.worker.trigger_async({"function_id": function_id, "payload": payload})
        except InvocationError as error:
            why = f"{error.code}: {unnamed(function_id, error.message)}"
            self._log.warn(f"the auth function {function_id} failed, so nobody gets in: {why}")
            result = None
        if not isinstance(result, dict) or "context" not in result:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "the auth function did not let you in\n")
        self._contexts[connection] = result["context"]
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        subscriber = Subscriber(_Socket(connection), self._contexts.pop(connection, None))
        session = Session(self._services, subscriber)
        tasks = [asyncio.create_task(work) for work in (subscriber.write(), subscriber.cut())]
        try:
            with contextlib.suppress(ConnectionClosed):
                async for message in connection:
                    await session.receive(message)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await session.end()


class _Socket:
    """A connection as a subscriber writes to it. Closing does not wait for a client that does not read."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.send = connection.send

    async def close(self, code: int, reason: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._connection.close(code, reason)
        self._connection.transport.abort()
