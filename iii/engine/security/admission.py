"""Who may connect over WebSocket: the decision table of the handshake. Pure.

Three questions, in this order, each with its own status: is this request meant for us (`Host`, 400 and 421), does it
come from a page that may talk to us (`Origin`, 403), and is it our user (the kernel's socket table, or the token;
401). A web page reaches a loopback port as easily as a program does: the first two are what keeps it out. Called by
the gateway before the upgrade; nothing has a side effect before the answer.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from urllib.parse import parse_qs

from msgspec import Struct

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
# Browsers cannot set headers: they show the token as a subprotocol of this name, followed by its base64url form.
SUBPROTOCOL = "iii.token."


class Policy(Struct, frozen=True):
    """What one listener demands. `hosts` are exact `Host` values, None for any; `origins` exact `Origin` values.

    `token` is None where an auth function decides about every connection instead.
    """

    hosts: tuple[str, ...] | None
    origins: tuple[str, ...] = ()
    token: str | None = None


class Knock(Struct, frozen=True):
    """A handshake's part that admission judges: every header as often as it was sent."""

    hosts: Sequence[str]
    origins: Sequence[str]
    authorizations: Sequence[str]
    subprotocols: Sequence[str]
    query: str
    is_same_user: bool


class Verdict(Struct, frozen=True):
    """`status` 101 lets it in, with the subprotocol to confirm; any other refuses it."""

    status: int
    subprotocol: str | None = None


def loopback_hosts(port: int) -> tuple[str, ...]:
    """Return the `Host` values of a loopback listener."""
    return tuple(f"{name}:{port}" for name in LOOPBACK_NAMES)


def judge(policy: Policy, knock: Knock) -> Verdict:
    """Decide about one handshake."""
    if len(knock.hosts) != 1:
        return Verdict(400)
    if policy.hosts is not None and knock.hosts[0] not in policy.hosts:
        return Verdict(421)
    if len(knock.origins) > 1 or any(one not in policy.origins for one in knock.origins):
        return Verdict(403)
    return judge_user(policy, knock)


def judge_user(policy: Policy, knock: Knock) -> Verdict:
    """Decide the third question alone: is it our user, or one with the token?"""
    offered = [name for name in knock.subprotocols if name.startswith(SUBPROTOCOL)]
    confirmed = offered[0] if offered else None
    if policy.token is None:
        return Verdict(101, confirmed)
    if "token" in parse_qs(knock.query, keep_blank_values=True):
        return Verdict(401)  # a token in a URL ends up in logs
    shown = [*map(_bearer, knock.authorizations), *map(_from_subprotocol, offered)]
    if not shown:
        return Verdict(101 if knock.is_same_user else 401)
    return Verdict(101, confirmed) if all(_is(policy.token, token) for token in shown) else Verdict(401)


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _from_subprotocol(name: str) -> str:
    encoded = name.removeprefix(SUBPROTOCOL)
    try:
        return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""


def _is(token: str, shown: str) -> bool:
    """Compare in constant time: how long a refusal takes tells nothing about the token."""
    return hmac.compare_digest(token.encode(), shown.encode())
