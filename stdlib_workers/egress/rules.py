"""Where requests may go: the URL's form, the hosts on the list, the addresses behind them. Pure.

`target_of` judges the URL, `check_addresses` the addresses that its host resolves to; the transport does both before it
connects, and connects to none but those addresses. Only global unicast addresses are public. All others are internal:
this machine, its network, its cloud's metadata service. Addresses that carry an IPv4 address inside (mapped,
translated, NAT64, 6to4, ISATAP) are judged by what they carry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from stdlib_workers.values import OptionError, check_names

ANY_HOST = ("*",)
_PORTS = {"http": 80, "https": 443}
# Browsers, resolvers and proxies read these differently, which an attacker uses.
_SUSPICIOUS = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
_KEYS = ("url_allowlist", "block_private_ips", "require_https", "allowed_networks")
# IPv4 addresses that are not global unicast: IANA's special-purpose registry, read here instead of through `is_global`,
# whose answers differ between Python versions. 168.63.129.16 is Azure's metadata service on a public address.
_INTERNAL_V4 = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/3", "168.63.129.16/32"),
    )
)
# What IANA gives out as global unicast, and what is special in there: protocol assignments (Teredo, ORCHID, benchmarks)
# and documentation.
_GLOBAL_V6 = IPv6Network("2000::/3")
_INTERNAL_V6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))
# Wrappers that are no addresses by themselves; the IPv4 address is in the last 32 bits: mapped (RFC 4291), translated
# (RFC 2765), NAT64 (RFC 6052). A network's own NAT64 (64:ff9b:1::/48) is internal whatever is inside.
_WRAPPERS = tuple(IPv6Network(text) for text in ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
# The upper half of an interface id that holds an IPv4 address (RFC 5214), for private and for global ones.
_ISATAP = (0x00005EFE, 0x02005EFE)


class EgressDenied(Exception):
    """The request must not be made. `reason` is one word of: url, https, allowlist, private, dns."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: `host` lower case without brackets, `path` with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Rules:
    """`allowlist`: globs of hosts. `networks`: private networks that may be reached all the same."""

    allowlist: tuple[str, ...] = ANY_HOST
    blocks_private: bool = True
    requires_https: bool = True
    networks: tuple[str, ...] = ()

    def target_of(self, url: str) -> Target:
        """Return where the URL leads. Raises `EgressDenied`."""
        target = _parsed(url)
        if self.requires_https and target.scheme != "https":
            raise EgressDenied("https", f"https is required, not {target.scheme}")
        if not any(fnmatchcase(target.host, glob.lower()) for glob in self.allowlist):
            raise EgressDenied("allowlist", f"{target.host} is not in url_allowlist")
        return target

    def check_addresses(self, host: str, addresses: Iterable[str]) -> None:
        """Raise `EgressDenied` unless every one of the host's addresses may be connected to."""
        addresses = list(addresses)
        if not addresses:
            raise EgressDenied("dns", f"{host} has no address")
        for address in addresses:
            if self.blocks_private and not is_allowed(address, self.networks):
                raise EgressDenied("private", f"{host} leads to {address}, which is not on the public internet")


def _parsed(url: str) -> Target:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii").lower().rstrip(".")
        port = parts.port
    except ValueError as error:  # UnicodeError of idna among them
        raise EgressDenied("url", f"invalid URL: {error}") from None
    if _SUSPICIOUS.search(url) or parts.scheme not in _PORTS or not _HOST.fullmatch(host) or port == 0:
        raise EgressDenied("url", "invalid URL: it must be http(s)://host[:port]/path, without spaces and backslashes")
    if parts.username is not None or parts.password is not None:
        raise EgressDenied("url", "invalid URL: credentials in it would be logged")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii():
        raise EgressDenied("url", "invalid URL: percent-encode what is not ASCII")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path)


def rules_from(table: Any, worker: str) -> Rules:
    """Return the rules in a worker's `security` table. OptionError for an unknown key or a value that does not fit."""
    if not isinstance(table, Mapping):
        raise OptionError(f"{worker}: security must be a table, got {table!r}")
    check_names(table, _KEYS, f"{worker}: security")
    networks = []
    for text in _strings(table, "allowed_networks", worker):
        try:
            networks.append(str(ip_network(text)))
        except ValueError:
            raise OptionError(f"{worker}: security.allowed_networks: {text!r} is no address or network") from None
    return Rules(
        # The contract reads an empty list as no list.
        _strings(table, "url_allowlist", worker) or ANY_HOST,
        _boolean(table, "block_private_ips", worker),
        _boolean(table, "require_https", worker),
        tuple(networks),
    )


def _strings(table: Mapping[str, Any], name: str, worker: str) -> tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise OptionError(f"{worker}: security.{name} must be a list of strings, got {value!r}")
    return tuple(value)


def _boolean(table: Mapping[str, Any], name: str, worker: str) -> bool:
    value = table.get(name, True)
    if not isinstance(value, bool):
        raise OptionError(f"{worker}: security.{name} must be true or false, got {value!r}")
    return value


def is_public(text: str) -> bool:
    """Tell whether a numeric address, as a resolver returns it, is public. ValueError for anything else."""
    return is_allowed(text, ())


def is_allowed(text: str, networks: tuple[str, ...]) -> bool:
    """Tell whether the address and what it carries are public or in `networks` (`10.1.0.0/16`, or one address)."""
    address = _address(text)
    parsed = [ip_network(network) for network in networks]

    def is_inside(form: IPv4Address | IPv6Address) -> bool:
        return any(form in network for network in parsed)

    return is_inside(address) or all(_is_global(form) or is_inside(form) for form in _forms(address))


def _address(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.partition("%")[0])  # what follows a % is an interface of this machine


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _INTERNAL_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _INTERNAL_V6)


def _forms(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Return the address and those inside of it, without wrappers that are no addresses by themselves."""
    if isinstance(address, IPv4Address):
        return [address]
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in wrapper for wrapper in _WRAPPERS):
        return [last]
    if address.sixtofour is not None:
        return [address, address.sixtofour]
    return [address, last] if int(address) >> 32 & 0xFFFFFFFF in _ISATAP else [address]
