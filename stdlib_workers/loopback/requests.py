"""Who may ask: a page of any site can reach loopback, and any name can be bound to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from stdlib_workers.values.serving import LOOPBACK


def hosts_of(port: int) -> frozenset[str]:
    """Return the Host headers that name a server of this machine on `port`."""
    return frozenset(f"{name}:{port}" for name in LOOPBACK)


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    """Return the values of each header by its name in lower case."""
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return fields


def refusal(fields: dict[str, list[str]], hosts: frozenset[str]) -> tuple[int, str] | None:
    """Return status and text for a request that may not go on, None for one that may.

    The Host must be one of `hosts`, and no page but one of theirs asks.
    """
    host = fields.get("host", [])
    if len(host) != 1 or host[0].lower() not in hosts:
        return 421, "this server does not answer for that Host"
    if any(origin.lower() not in {f"http://{name}" for name in hosts} for origin in fields.get("origin", [])):
        return 403, "pages of this origin may not ask this"
    return None
