"""How much each peer may register: functions, triggers, trigger types, actions, by number and by bytes. Pure.

What a peer has registered is held in the budget until it unregisters it or has gone. What it still has to say (a
registration in place of an earlier one) costs nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Raw
from msgspec.structs import astuple

from iii.engine.routing.budget import Account, Budget
from iii.engine.routing.peer import Peer
from iii.protocol import messages as m

# Registrations of one peer. No project needs more functions; the other kinds are rarer.
MAX_REGISTRATIONS: dict[type, tuple[str, int]] = {
    m.RegisterFunction: ("functions", 10_000),
    m.RegisterTrigger: ("triggers", 10_000),
    m.RegisterTriggerType: ("trigger types", 1_000),
    m.RegisterAction: ("trigger actions", 1_000),
    m.Observe: ("observers", 1_000),
}
_ENDS: dict[type, type] = {
    m.UnregisterFunction: m.RegisterFunction,
    m.UnregisterTrigger: m.RegisterTrigger,
    m.UnregisterTriggerType: m.RegisterTriggerType,
    m.UnregisterAction: m.RegisterAction,
    m.Unobserve: m.Observe,
}
# Bytes that a registration costs beside its fields, and by how much its fields grow: schemas and metadata are kept as
# bytes and as objects.
OVERHEAD, GROWTH = 1024, 4


class Registered(Account):
    """What one peer has registered: sizes by kind and id."""

    __slots__ = ("counts", "is_told", "sizes")

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[tuple[type, str], int] = {}
        self.counts = dict.fromkeys(MAX_REGISTRATIONS, 0)
        self.is_told = False  # the user has been told that it registers too much


class Quota:
    """The registrations of all peers."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._peers: dict[Peer, Registered] = {}

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._peers.values())

    def refusal(self, peer: Peer, message: Any) -> str | None:
        """Count a registration, or return why the peer may not make it. The engine's own peers have no limit."""
        kind = type(message)
        if (began := _ENDS.get(kind)) is not None:
            self._drop(peer, (began, message.id))
        limit = MAX_REGISTRATIONS.get(kind)
        if limit is None or peer.kind == "engine":
            return None
        registered = self._peers.setdefault(peer, Registered())
        key, size = (kind, message.id), size_of(message)
        grows_by = size - registered.sizes.get(key, 0)
        label, count = limit
        if key not in registered.sizes and registered.counts[kind] >= count:
            return f"{peer.name or peer.id} has {count} {label} already, the most that one worker may have"
        most = self._budget.share
        if registered.held + grows_by > most or self._budget.is_exhausted_by(registered.held):
            return (
                f"{peer.name or peer.id} has registered {registered.held / 1e6:.1f} MB, this would be "
                f"{size / 1e6:.1f} MB more; the most for one worker is {most / 1e6:.0f} MB, a part of [engine] memory"
            )
        registered.counts[kind] += key not in registered.sizes
        registered.sizes[key] = size
        self._budget.hold(registered, grows_by)
        return None

    def is_first_refusal(self, peer: Peer) -> bool:
        """Whether the user has not heard yet that the peer registers too much."""
        registered = self._peers.setdefault(peer, Registered())
        is_first, registered.is_told = not registered.is_told, True
        return is_first

    def forget(self, peer: Peer) -> None:
        """The peer is gone, and with it what it had registered."""
        registered = self._peers.pop(peer, None)
        if registered is not None:
            self._budget.set(registered, 0)

    def _drop(self, peer: Peer, key: tuple[type, str]) -> None:
        registered = self._peers.get(peer)
        if registered is not None and (size := registered.sizes.pop(key, None)) is not None:
            registered.counts[key[0]] -= 1
            self._budget.release(registered, size)


def size_of(message: Any) -> int:
    """Return the bytes that a registration costs while it lives."""
    fields = (len(value) for value in astuple(message) if isinstance(value, str | Raw))
    return OVERHEAD + GROWTH * sum(fields)
