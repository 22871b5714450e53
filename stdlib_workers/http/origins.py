"""Who may ask: the Host and Origin of a request. Pure. CORS itself is Starlette's.

A page of another site must reach no function: its Origin is refused before one is called, unless the configuration
lists it. On loopback the Host must be one of our own names, or a name that was bound to 127.0.0.1 gets past this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stdlib_workers.http.replies import Refusal
from stdlib_workers.values.serving import LOOPBACK

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Origins:
    """The hosts we answer for (`name:port`; none: any) and the foreign origins that may ask (`*`: every one)."""

    hosts: frozenset[str]
    foreign: tuple[str, ...]

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Refuse a host or an origin that has no business here."""
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if self.hosts and host not in self.hosts:
            raise Refusal(421, "MISDIRECTED_REQUEST", "this server does not answer for that Host")
        if origin is None:
            if headers.get("sec-fetch-site") in ("cross-site", "same-site") and method not in SAFE_METHODS:
                raise Refusal(403, "FORBIDDEN", "a page of another site may not send this without an Origin")
        elif origin not in (f"http://{host}", f"https://{host}", *self.foreign) and "*" not in self.foreign:
            raise Refusal(403, "FORBIDDEN", "this origin is not in allowed_origins of the http worker's cors")


def hosts_for(host: str, port: int, names: Iterable[str]) -> frozenset[str]:
    """Return the Host headers to answer: on loopback our own names, elsewhere those configured, if any."""
    listed = [*(LOOPBACK if host in ("127.0.0.1", "::1", "localhost") else ()), *names]
    own = [name if name.rpartition(":")[2].isdigit() and name[-1] != "]" else f"{name}:{port}" for name in listed]
    bare = [name for name in listed if port in (80, 443) or name in names]
    return frozenset(name.lower() for name in (*own, *bare))
