"""Which WebSocket handshakes are let in: those for this listener, and from pages that the options name. Pure.

A browser lets any page connect to any address, but sends the page's true `Origin`. A page whose own name resolves to
this address (DNS rebinding) sends that name as `Host`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from stdlib_workers.stream.options import LOOPBACK


class Headers(Protocol):
    """The headers of a handshake, each as often as it was sent."""

    def get_all(self, key: str) -> list[str]: ...


def refusal(hosts: Sequence[str], origins: Sequence[str], names: Iterable[str], allowed: Iterable[str]) -> str | None:
    """Return why a handshake is refused, None if it is let in.

    `hosts` and `origins` are the values of the request's headers; `names` and `allowed` are their permitted values.
    A request without Origin does not come from a page.
    """
    if len(hosts) != 1 or hosts[0].lower() not in names:
        return f"this is not {hosts[0] if hosts else 'a listener without a name'}"
    if len(origins) > 1 or any(origin not in allowed for origin in origins):
        return f"pages of {origins[0]} may not connect; name them in allowed_origins of the stream worker"
    return None


def names_of(host: str, port: int) -> frozenset[str]:
    """Return the values of Host that name this listener."""
    hosts = {host.lower(), *(LOOPBACK if host in LOOPBACK else ())}
    return frozenset(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in hosts)


def request_from(target: str, headers: Iterable[tuple[str, str]], address: tuple[str, int]) -> dict[str, object]:
    """Return the payload of the auth function for a handshake."""
    parts = urlsplit(target)
    query: dict[str, list[str]] = {}
    for pair in parts.query.split("&") if parts.query else ():
        name, _, value = pair.partition("=")
        query.setdefault(name, []).append(value)
    return {
        "headers": {name.lower(): value for name, value in headers},
        "path": parts.path,
        "query_params": query,
        "addr": f"{address[0]}:{address[1]}",
    }


def check_payload_from(
    target: str, headers: Headers, client: tuple[object, ...], server: tuple[object, ...]
) -> dict[str, object]:
    """Return the payload of `engine::connections::check`; `client` and `server` are the addresses of both ends."""
    offered = ",".join(headers.get_all("Sec-WebSocket-Protocol"))
    return {
        "client": list(client[:2]),
        "server": list(server[:2]),
        "authorizations": headers.get_all("Authorization"),
        "subprotocols": [name.strip() for name in offered.split(",") if name.strip()],
        "query": urlsplit(target).query,
    }
