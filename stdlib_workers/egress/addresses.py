"""Which IP addresses belong to the public internet. Pure.

All others are internal: this machine, its network, its cloud's metadata service. Addresses that carry another one
inside (v4-mapped, NAT64, 6to4, Teredo) are judged by what they carry.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Translators put the IPv4 address into the last 32 bits (RFC 6052).
_TRANSLATED = IPv6Network("64:ff9b::/96")
# Internal networks that not every Python version knows: `::a.b.c.d`, a network's own translator (RFC 8215), site-local.
_INTERNAL = tuple(IPv6Network(text) for text in ("::/96", "64:ff9b:1::/48", "fec0::/10"))


def is_public(text: str) -> bool:
    """Tell whether a numeric address, as a resolver returns it, is public. ValueError for anything else."""
    return all(
        address.is_global
        and not address.is_multicast
        and not (isinstance(address, IPv6Address) and any(address in network for network in _INTERNAL))
        for address in _forms(_parsed(text))
    )


def is_in(text: str, networks: tuple[str, ...]) -> bool:
    """Tell whether the address is in one of `networks` (`10.1.0.0/16`, or one address)."""
    parsed = [ip_network(network) for network in networks]
    return any(address in network for address in _forms(_parsed(text)) for network in parsed)


def _parsed(text: str) -> Address:
    return ip_address(text.partition("%")[0])  # what follows a % is an interface of this machine


def _forms(address: Address) -> list[Address]:
    """Return the address and those inside of it, without wrappers that are no addresses by themselves."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _TRANSLATED:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    carried = [address.sixtofour, *(address.teredo or ())]
    return [address, *[inner for inner in carried if inner is not None]]
