"""How a listener with rules authenticates its clients: by asking its auth function.

What an authenticated session may do is decided by `iii/engine/security/rbac.py`.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from iii.engine.builtins.client import EngineClient
from iii.engine.security.rbac import WITHOUT_AUTH_FUNCTION, AuthResult, Permissions, Rules
from iii.errors import ErrorCode, InvocationError


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
        """Return the permissions of a client's session. Raises `InvocationError` (`AUTH_ERROR`) if it gets none."""
        if self.rules is None or self.rules.auth_function_id is None:
            return Permissions(self.rules, WITHOUT_AUTH_FUNCTION)
        try:
            result = await self.engine_client.call(self.rules.auth_function_id, client)
            return Permissions(self.rules, msgspec.json.decode(result, type=AuthResult))
        except InvocationError as error:
            raise InvocationError(ErrorCode.AUTH_ERROR, error.message) from None
        except msgspec.DecodeError as error:
            raise InvocationError(ErrorCode.AUTH_ERROR, f"no usable result: {error}") from None
