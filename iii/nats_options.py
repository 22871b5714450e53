"""How the engine and the standard workers connect to the NATS servers of `[cluster]`."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

# Seconds. A server that has died is noticed at once; one that is frozen, when it has not answered two pings.
PING_INTERVAL, MAX_PINGS = 1, 2
CONNECT_TIMEOUT = 2


class Servers(Protocol):
    """What of `[cluster]` a connection needs."""

    @property
    def servers(self) -> Sequence[str]: ...
    @property
    def user(self) -> str | None: ...
    @property
    def password(self) -> str | None: ...
    @property
    def token(self) -> str | None: ...
    @property
    def credentials(self) -> Path | str | None: ...
    @property
    def tls_ca(self) -> Path | str | None: ...
    @property
    def tls_cert(self) -> Path | str | None: ...
    @property
    def tls_key(self) -> Path | str | None: ...


def connect_options(spec: Servers) -> dict[str, Any]:
    """Return arguments of nats-py's `connect`: where to, as whom, and a connection that is never given up.

    Raises OSError for TLS files that cannot be used.
    """
    return {
        "servers": list(spec.servers),
        "connect_timeout": CONNECT_TIMEOUT,
        "max_reconnect_attempts": -1,
        "ping_interval": PING_INTERVAL,
        "max_outstanding_pings": MAX_PINGS,
        "tls": _tls_of(spec),
        "user": spec.user,
        "password": spec.password,
        "token": spec.token,
        "user_credentials": None if spec.credentials is None else str(spec.credentials),
    }


def _tls_of(spec: Servers) -> ssl.SSLContext | None:
    if spec.tls_ca is None and spec.tls_cert is None:
        return None
    context = ssl.create_default_context(cafile=spec.tls_ca)
    if spec.tls_cert is not None:
        context.load_cert_chain(spec.tls_cert, spec.tls_key)
    return context
