"""Who may ask: the Host and Origin of a request, and the CORS headers of its answer. Pure.

A page of another site must reach no function: its Origin is refused before one is called, unless the configuration
lists it. On loopback the Host must be one of our own names, or a name that was bound to 127.0.0.1 gets past this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from stdlib_workers.http.replies import Headers, Refusal, Reply
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

    def headers_for(self, request: Request) -> Headers:
        """Return what every answer carries: with `cors`, it depends on the Origin, also where a request has none."""
        if self.cors is None:
            return []
        headers = [(b"vary", b"origin")]
        origin = request.headers.get("origin")
        if origin is not None and self.cors.allows(origin) and not self._is_own(origin, request):
            headers.append((b"access-control-allow-origin", origin.encode("latin-1")))
        return headers

    def check(self, request: Request) -> None:
        """Refuse a host or an origin that has no business here."""
        if self.hosts and request.headers.get("host", "").lower() not in self.hosts:
            raise Refusal(421, "MISDIRECTED_REQUEST", "this server does not answer for that Host")
        origin = request.headers.get("origin")
        if origin is None:
            site = request.headers.get("sec-fetch-site")
            if site in ("cross-site", "same-site") and request.method not in SAFE_METHODS:
                raise Refusal(403, "FORBIDDEN", "a page of another site may not send this without an Origin")
        elif not self._is_own(origin, request) and (self.cors is None or not self.cors.allows(origin)):
            raise Refusal(403, "FORBIDDEN", "this origin is not in allowed_origins of the http worker's cors")

    def _is_own(self, origin: str, request: Request) -> bool:
        host = request.headers.get("host", "").lower()
        return origin in (f"http://{host}", f"https://{host}")

    def preflight(self, request: Request, methods: Iterable[str]) -> Reply:
        """Answer OPTIONS: what the path allows, and to a preflight what the page may send."""
        allowed = ", ".join(sorted(methods)).encode()
        out = [(b"allow", allowed)]
        if self.cors is not None and {"origin", "access-control-request-method"} <= request.headers.keys():
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
