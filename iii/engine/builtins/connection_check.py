"""`engine::connections::check`: the gateway's rule about users, for listeners that workers open themselves.

The worker sends the two ends of a connection and what the handshake showed; the engine answers whether the client is
the engine's own user or has the token, which so never leaves the engine. `Host` and `Origin` are for the worker to
check: it knows its address and its pages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Raw, Struct, field
from msgspec.json import decode

from iii.engine.routing.peer import Peer
from iii.engine.security.admission import AdmissionPolicy, AuthThrottle, HandshakeRequest, admit_user
from iii.engine.security.peer_uid import Address


class ConnectionQuestion(Struct):
    """The payload. `client` and `server` are the two ends as (host, port); the others are from the handshake."""

    client: Address
    server: Address
    authorizations: list[str] = field(default_factory=list)
    subprotocols: list[str] = field(default_factory=list)
    query: str = ""


class ConnectionCheck(Struct, frozen=True):
    """The function. `is_same_user(client, server)` asks the kernel whether the client runs as the engine's user."""

    token: str
    throttle: AuthThrottle
    is_same_user: Callable[[Address, Address], bool]

    async def answer(self, payload: Raw, _: Peer) -> dict[str, Any]:
        """Return `{"allowed", "subprotocol"}`; the worker confirms the subprotocol in the handshake's response."""
        question = decode(payload, type=ConnectionQuestion)
        is_same_user = self.is_same_user(question.client, question.server)
        shown = question.authorizations, question.subprotocols, question.query
        handshake = HandshakeRequest((), (), *shown, is_same_user=is_same_user)  # hosts and origins: for the worker
        response = admit_user(AdmissionPolicy(hosts=None, token=self.token), handshake)
        is_allowed = response.status == 101
        if not is_allowed:
            await asyncio.sleep(self.throttle.delay(question.client[0], asyncio.get_running_loop().time()))
        return {"allowed": is_allowed, "subprotocol": response.subprotocol}
