"""Who may connect over WebSocket: the decision table of the handshake, and the throttle of rejections. Pure.

Three questions in this order, each with its own status: is the request meant for this listener (`Host`, 400 and 421),
does it come from an allowed web page (`Origin`, 403), and does it come from the engine's user (the kernel's socket
table, or the token; 401). A web page reaches a loopback port as easily as a program does: the first two questions keep
it out. The gateway asks before the upgrade; nothing has a side effect before the answer.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from urllib.parse import parse_qs

from msgspec import Struct

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
# Browsers cannot set headers: they send the token as a subprotocol, this prefix and the base64url form of the token.
SUBPROTOCOL = "iii.token."
# Seconds in which rejections are counted, and how many of them are answered at once.
COUNTING_INTERVAL, MAX_AT_ONCE = 1.0, 10
# How long every further rejection of the address waits.
REJECTION_INTERVAL = 1.0
# Addresses that are remembered; the count of the oldest is forgotten first.
MAX_ADDRESSES = 1024


class AdmissionPolicy(Struct, frozen=True):
    """The rules of one listener. `hosts` are exact `Host` values, None for any; `origins` are exact `Origin` values.

    `token` is None where an auth function decides about every connection instead.
    """

    hosts: tuple[str, ...] | None
    origins: tuple[str, ...] = ()
    token: str | None = None


class HandshakeRequest(Struct, frozen=True):
    """The part of a handshake that admission depends on: every header as often as it was sent."""

    hosts: Sequence[str]
    origins: Sequence[str]
    authorizations: Sequence[str]
    subprotocols: Sequence[str]
    query: str
    is_same_user: bool


class HandshakeResponse(Struct, frozen=True):
    """`status` 101 admits the client, with the subprotocol to confirm; any other status rejects it."""

    status: int
    subprotocol: str | None = None


def loopback_hosts(port: int) -> tuple[str, ...]:
    return tuple(f"{name}:{port}" for name in LOOPBACK_NAMES)


def admit(policy: AdmissionPolicy, request: HandshakeRequest) -> HandshakeResponse:
    """Decide about one handshake."""
    if len(request.hosts) != 1:
        return HandshakeResponse(400)
    if policy.hosts is not None and request.hosts[0] not in policy.hosts:
        return HandshakeResponse(421)
    if len(request.origins) > 1 or any(origin not in policy.origins for origin in request.origins):
        return HandshakeResponse(403)
    return admit_user(policy, request)


def admit_user(policy: AdmissionPolicy, request: HandshakeRequest) -> HandshakeResponse:
    """Decide the third question alone: is it the engine's user, or a client with the token?"""
    offered = [name for name in request.subprotocols if name.startswith(SUBPROTOCOL)]
    confirmed = offered[0] if offered else None
    if policy.token is None:
        return HandshakeResponse(101, confirmed)
    if "token" in parse_qs(request.query, keep_blank_values=True):
        return HandshakeResponse(401)  # a token in a URL ends up in logs
    headers = [authorization.partition(" ") for authorization in request.authorizations]
    shown = [token.strip() if scheme.lower() == "bearer" else "" for scheme, _, token in headers]
    shown += map(_token_from_subprotocol, offered)
    if not shown:
        return HandshakeResponse(101 if request.is_same_user else 401)
    # Compared in constant time: how long a rejection takes tells nothing about the token.
    is_right = all(hmac.compare_digest(policy.token.encode(), token.encode()) for token in shown)
    return HandshakeResponse(101, confirmed) if is_right else HandshakeResponse(401)


def _token_from_subprotocol(name: str) -> str:
    encoded = name.removeprefix(SUBPROTOCOL)
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""


class AuthThrottle:
    """Delays the rejections of an address that is wrong often, so that guesses cost the engine little time.

    The token stays secret without it (256 bits). `now` is monotonic seconds.
    """

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}

    def __repr__(self) -> str:
        return f"<AuthThrottle of {len(self._windows)} addresses>"

    def delay(self, address: str, now: float) -> float:
        """Count one more rejection; return the seconds that its answer has to wait."""
        since, count = self._windows.pop(address, (now, 0))
        if now - since >= COUNTING_INTERVAL:
            since, count = now, 0
        self._windows[address] = (since, count + 1)
        if len(self._windows) > MAX_ADDRESSES:
            del self._windows[next(iter(self._windows))]
        return REJECTION_INTERVAL if count >= MAX_AT_ONCE else 0.0
