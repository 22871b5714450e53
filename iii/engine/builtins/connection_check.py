"""`engine::connections::check`: the gateway's rule about users, for listeners that workers open themselves.

A worker tells the ends of a connection and what the handshake showed; the engine says whether it is our user or has
the token, which therefore never leaves the engine. `Host` and `Origin` are the worker's own to judge: it knows its
address and its pages. Made by the composition root.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Raw, Struct, field
from msgspec.json import decode

from iii.engine.routing.peer import Peer
from iii.engine.security.admission import AdmissionPolicy, AuthThrottle, HandshakeRequest, admit_user

Address = tuple[str, int]

ID = "engine::connections::check"
DESCRIPTION = "Say whether a connection to a worker's own listener comes from the engine's user, or shows the token"


class Question(Struct):
    """The payload. `client` and `server` are the two ends as (host, port); the rest is as the handshake has it."""

    client: tuple[str, int]
    server: tuple[str, int]
    authorizations: list[str] = field(default_factory=list)
    subprotocols: list[str] = field(default_factory=list)
    query: str = ""


class ConnectionCheck:
    """Answers for one token. `is_same_user(client, server)` asks the kernel."""

    def __init__(
        self,
        token: str,
        throttle: AuthThrottle,
        is_same_user: Callable[[Address, Address], bool],
    ) -> None:
        self._policy = AdmissionPolicy(hosts=None, token=token)
        self._throttle = throttle
        self._is_same_user = is_same_user

    async def answer(self, payload: Raw, _: Peer) -> dict[str, Any]:
        """Return `{"allowed", "subprotocol"}`; the subprotocol is to be confirmed in the handshake's answer."""
        asked = decode(payload, type=Question)
        request = HandshakeRequest(
            hosts=(),
            origins=(),
            authorizations=asked.authorizations,
            subprotocols=asked.subprotocols,
            query=asked.query,
            is_same_user=self._is_same_user(asked.client, asked.server),
        )
        response = admit_user(self._policy, request)
        is_allowed = response.status == 101
        if not is_allowed:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(self._throttle.delay(asked.client[0], loop.time()))
        return {"allowed": is_allowed, "subprotocol": response.subprotocol}
