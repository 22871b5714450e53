"""Authentication of clients on a listener with rules: its auth function decides, before any session is opened.

What an authenticated client may do is decided by `iii/engine/security/rbac.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from iii.engine.builtins.client import EngineClient
from iii.engine.security.rbac import WITHOUT_AUTH_FUNCTION, AuthResult, Permissions, Rules
from iii.engine.transport.session import Session
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import encode, encode_error
from iii.protocol.messages import Error, ErrorBody

if TYPE_CHECKING:
    from iii.engine.transport.websocket import WebSocketConnection

# Close code of a connection whose check failed with a bug of the engine (RFC 6455, 7.4.1).
INTERNAL_ERROR = 1011


class ConnectingClient(Struct, frozen=True):
    """The auth function's payload: header names in lower case, each query parameter with all its values."""

    headers: dict[str, str]
    query_params: dict[str, list[str]]
    ip_address: str


class AuthPolicy(Struct, frozen=True):
    """The rules and the middleware of one listener, and the client that calls its auth function and hooks."""

    engine_client: EngineClient
    rules: Rules | None = None
    middleware_function_id: str | None = None

    async def authenticate(self, client: ConnectingClient) -> Permissions:
        """Return the permissions of a client. Raises `InvocationError` (`AUTH_ERROR`) if it gets none."""
        if self.rules is None or self.rules.auth_function_id is None:
            return Permissions(self.rules, WITHOUT_AUTH_FUNCTION)
        try:
            result = await self.engine_client.call(self.rules.auth_function_id, client)
            return Permissions(self.rules, msgspec.json.decode(result, type=AuthResult))
        except InvocationError as error:
            raise InvocationError(ErrorCode.AUTH_ERROR, error.message) from None
        except msgspec.DecodeError as error:
            raise InvocationError(ErrorCode.AUTH_ERROR, f"no usable result: {error}") from None


@dataclass(eq=False)
class AuthenticatingSession(Session):
    """The session of a connection until its client is authenticated. Nothing is read from it meanwhile.

    `on_authenticated` gets the permissions and gives the connection its next session.
    """

    connection: WebSocketConnection
    policy: AuthPolicy
    client: ConnectingClient
    on_authenticated: Callable[[Permissions], None]
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    def open(self) -> None:
        self.connection.pause()
        self._task = start_check(self.connection, self._authenticate(), name=self.client.ip_address)

    async def _authenticate(self) -> None:
        try:
            permissions = await self.policy.authenticate(self.client)
        except InvocationError as error:
            self.connection.send_lines([encode(Error(encode_error(ErrorBody(error.code, error.message))))])
            self.connection.close()
            return
        if self.connection.is_open:
            self.on_authenticated(permissions)
            self.connection.resume()

    def on_closed(self) -> None:
        if self._task is not None:
            self._task.cancel()


def start_check(connection: WebSocketConnection, check: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """Run a check of a connection's client or messages. If it fails with a bug of the engine, the connection closes.

    Otherwise a message could pass unchecked, or the client would wait for ever. `name` of the client is logged.
    """

    def on_done(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": f"the checkpoint of {name} broke", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
            connection.close(INTERNAL_ERROR)

    task = asyncio.get_running_loop().create_task(check)
    task.add_done_callback(on_done)
    return task
