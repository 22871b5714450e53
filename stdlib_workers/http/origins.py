"""Who may ask: the Host and Origin of a request, and the CORS headers of its answer. Pure.

A page of another site must reach no function: its Origin is refused before one is called, unless the configuration
lists it. On loopback the Host must be one of our own names, or a name that was bound to 127.0.0.1 gets past this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stdlib_workers.http.failures import Refusal
from stdlib_workers.http.replies import Headers, Reply
from stdlib_workers.http.requests import Request

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_AGE_SECONDS = b"600"


@dataclass(frozen=True, slots=True)
class Cors:
    """What pages of other origins may do. Empty lists and `*` mean any."""

    origins: frozenset[str]
    methods: tuple[str, ...] = ()

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may ask."""
        return not self.origins or "*" in self.origins or origin in self.origins


@dataclass(frozen=True, slots=True)
class Origins:
    """The hosts we answer for (`name:port`; none: any) and the foreign origins that may ask."""

    hosts: frozenset[str]
    cors: Cors | None

    def check(self, request: Request) -> Headers:
        """Return the CORS headers of the answer. Refusal for a host or an origin that has no business here."""
        host = self._host(request.raw_headers)
        origin = request.headers.get("origin")
        if origin is None:
            site = request.headers.get("sec-fetch-site")
            if site in ("cross-site", "same-site") and request.method not in SAFE_METHODS:
                raise Refusal(403, "FORBIDDEN", "a page of another site may not send this without an Origin")
            return []
        if origin in (f"http://{host}", f"https://{host}"):
            return []
        if self.cors is None or not self.cors.allows(origin):
            raise Refusal(403, "FORBIDDEN", "this origin is not in allowed_origins of the http worker's cors")
        return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]

    def _host(self, headers: Headers) -> str:
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1:
            raise Refusal(400, "BAD_REQUEST", "a request has exactly one Host header")
        host = hosts[0].decode("latin-1").lower()
        if self.hosts and host not in self.hosts:
            raise Refusal(421, "MISDIRECTED_REQUEST", "this server does not answer for that Host")
        return host

    def preflight(self, request: Request, headers: Headers, methods: Iterable[str]) -> Reply:
        """Answer OPTIONS: what the path allows, and to a preflight what the page may send."""
        allowed = ", ".join(sorted(methods)).encode()
        out = [(b"allow", allowed), *headers]
        if self.cors is not None and headers and "access-control-request-method" in request.headers:
            asked = request.headers.get("access-control-request-headers", "*")
            out += [
                (b"access-control-allow-methods", ", ".join(self.cors.methods).encode() or allowed),
                (b"access-control-allow-headers", asked.encode("latin-1")),
                (b"access-control-max-age", MAX_AGE_SECONDS),
            ]
        return Reply(204, out)


def hosts_for(host: str, port: int, names: Iterable[str]) -> frozenset[str]:
    """Return the Host headers to answer: on loopback our own names, elsewhere those configured, if any."""
    is_loopback = host in ("127.0.0.1", "::1", "localhost")
    listed = [*(LOOPBACK if is_loopback else ()), *names]
    own = [name if _has_port(name) else f"{name}:{port}" for name in listed]
    bare = [name for name in listed if port in (80, 443) or name in names]
    return frozenset(name.lower() for name in (*own, *bare))


def _has_port(name: str) -> bool:
    return name.rpartition(":")[2].isdigit() and not name.endswith("]")
