"""What a listener demands of its connections, and what its auth function is told of a visitor.

Made by the composition root for listeners with rules or a middleware; held to by `checkpoint.py`.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from iii.engine.builtins.client import EngineClient
from iii.engine.security.rbac import UNASKED, AuthResult, Rules, Session
from iii.errors import ErrorCode, InvocationError


class Visitor(Struct, frozen=True):
    """What an auth function is told: header names in lower case, each query parameter with all its values."""

    headers: dict[str, str]
    query_params: dict[str, list[str]]
    ip_address: str


class Terms(Struct, frozen=True):
    """What a listener demands of its connections."""

    engine_client: EngineClient
    rules: Rules | None = None
    middleware_function_id: str | None = None

    async def session(self, visitor: Visitor) -> Session:
        """Ask the auth function who comes. Raises `InvocationError` (`AUTH_ERROR`) if nobody may."""
        if self.rules is None or self.rules.auth_function_id is None:
            return Session(self.rules, UNASKED)
        try:
            answer = await self.engine_client.call(self.rules.auth_function_id, visitor)
            return Session(self.rules, msgspec.json.decode(answer, type=AuthResult))
        except InvocationError as error:
            raise InvocationError(ErrorCode.AUTH_ERROR, error.message) from None
        except msgspec.DecodeError as error:
            raise InvocationError(ErrorCode.AUTH_ERROR, f"no usable result: {error}") from None
