"""The engine's memory as a budget: what each peer makes the engine hold, and who gets nothing more of it. Pure.

Everything that a peer can make the engine keep is held here with its bytes: calls under way, messages that wait for a
decision, unfinished messages, unread answers, data in channels, registrations. A holder is anything with a `held`
attribute: a peer, a connection, an account. What is held is released by the same amount, so that an idle engine holds
nothing. Most calls have short lines and are not held one by one: the number of calls is known anyway, and each is taken
to cost CALL_OVERHEAD.

Two bounds decide about new work; what was admitted goes on, and results always pass. A single holder may hold its
share. When all together hold the total, the holders above the fair part (the total, divided among the peers) get
nothing more, and those below it go on: the peers that hold the most are refused, and no others. At twice the total
nobody gets more: then the holders are mostly peers that have left behind what still runs.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

# Bytes that the engine may hold for all peers, unless `[engine] memory` says otherwise.
DEFAULT_MEMORY = 512_000_000
# A holder's share of the total: eight peers that hold all they can fill it.
_SHARES = 8
# Bytes of a line that is not held by itself.
SHORT_LINE = 1024
# Bytes that every call is taken to cost: the invocation, its id, its places in the tables, and a short line.
CALL_OVERHEAD = 1024 + SHORT_LINE
# Bytes that a message in a queue costs beside its data: the object and its place.
MESSAGE_OVERHEAD = 128


class Holder(Protocol):
    """Whatever makes the engine hold something."""

    held: int


class Account:
    """A holder by itself: of what stays when the peer that made it has left."""

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0


class Budget:
    """The bytes held by all holders, and by `calls`: those under way."""

    def __init__(self, total: int = DEFAULT_MEMORY) -> None:
        self.counted = 0  # held by all holders
        self.calls: Sized = ()
        self.peers = 0  # connected ones, among which the total is divided
        self.resize(total)

    def __repr__(self) -> str:
        return f"<Budget {self.used} of {self.total} bytes, {self.peers} peers>"

    @property
    def used(self) -> int:
        """Bytes that the engine holds for all peers."""
        return self.counted + CALL_OVERHEAD * len(self.calls)

    def resize(self, total: int) -> None:
        """Set the total; what is held already stays."""
        self.total = total
        self.share = total // _SHARES

    def hold(self, holder: Holder, size: int) -> None:
        """The engine holds `size` bytes more for this holder."""
        holder.held += size
        self.counted += size

    def release(self, holder: Holder, size: int) -> None:
        """The engine no longer holds these bytes."""
        holder.held -= size
        self.counted -= size

    def set(self, holder: Holder, size: int) -> None:
        """The engine holds exactly `size` bytes for this holder."""
        self.counted += size - holder.held
        holder.held = size

    def is_over_share(self, held: int) -> bool:
        """Whether these bytes are all that a single holder may hold."""
        return held > self.share

    def is_exhausted_by(self, held: int) -> bool:
        """Whether everything is used up, and whoever holds these bytes is one of those that hold the most."""
        used = self.used
        is_above_fair_part = held > self.total // max(self.peers, _SHARES)
        return used > self.total and (is_above_fair_part or used > 2 * self.total)

    def refuses(self, held: int) -> bool:
        """Whether the next piece of work is refused to whoever holds these bytes."""
        return self.is_over_share(held) or self.is_exhausted_by(held)
