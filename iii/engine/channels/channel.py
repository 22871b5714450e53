"""Channels: streams of messages between two parties that hold a reference, outside of calls. Pure.

A channel has one writer and one reader, each taken once, in either order and over any carrier. What the writer sends
waits here until the reader takes it, up to a bound; then the writer is paused, and its transport's own back-pressure
does the rest. The key in the reference is the only credential. Made by `engine::channels::create`, entered through
the gateway.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

from msgspec import Raw, Struct

from iii.engine.routing.peer import Peer
from iii.protocol.codec import decode_value
from iii.protocol.messages import is_empty

Direction = Literal["read", "write"]

# The contract's bounds of `buffer_size`, in messages.
DEFAULT_BUFFER, MAX_BUFFER = 64, 1024
# A message may be 64 MiB: their number alone bounds nothing.
MAX_BYTES = 8 * 1024 * 1024
# Seconds after which a channel with an end that nobody took is given up.
TTL = 300.0


class Wish(Struct):
    """The payload of `engine::channels::create`."""

    buffer_size: int | None = None


class End(Protocol):
    """One party's transport, as the channel sees it."""

    @property
    def is_congested(self) -> bool:
        """Whether what was delivered is piling up."""

    def deliver(self, opcode: int, data: bytes) -> None:
        """Send one message to this party."""

    def finish(self) -> None:
        """Close this party's connection, after what was delivered."""

    def pause(self) -> None:
        """Read nothing more from this party for now."""

    def resume(self) -> None:
        """Read again."""


class Channel:
    """One channel. `on_over` is called once, when nobody needs it any more."""

    def __init__(self, id: str, key: str, buffer_size: int, on_over: Callable[[Channel], None]) -> None:
        self.id = id
        self.key = key
        self._buffer_size = buffer_size
        self._on_over = on_over
        self._ends: dict[Direction, End] = {}
        self._taken: set[Direction] = set()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._is_written = False  # the writer has left: nothing more will come

    def __repr__(self) -> str:
        return f"<Channel {self.id} {sorted(self._taken)} {len(self._waiting)} waiting>"

    @property
    def is_complete(self) -> bool:
        """Whether both ends were taken."""
        return len(self._taken) == 2

    def take(self, direction: Direction, end: End) -> bool:
        """Give an end to a party; False if somebody had it already."""
        if direction in self._taken:
            return False
        self._taken.add(direction)
        self._ends[direction] = end
        if direction == "read":
            self.pump()
        return True

    def write(self, opcode: int, data: bytes) -> None:
        """The writer sent a message."""
        self._waiting.append((opcode, data))
        self._bytes += len(data)
        self.pump()

    def pump(self) -> None:
        """Deliver what waits as far as the reader takes it; pause or resume the writer accordingly."""
        reader, writer = self._ends.get("read"), self._ends.get("write")
        while reader is not None and self._waiting and not reader.is_congested:
            opcode, data = self._waiting.popleft()
            self._bytes -= len(data)
            reader.deliver(opcode, data)
        if writer is not None:
            is_full = len(self._waiting) >= self._buffer_size or self._bytes > MAX_BYTES
            writer.pause() if is_full else writer.resume()
        elif reader is not None and self._is_written and not self._waiting:
            self._end()

    def leave(self, direction: Direction) -> None:
        """A party is gone. What the writer sent before still reaches the reader; without a reader it is over."""
        if self._ends.pop(direction, None) is None:
            return
        if direction == "read":
            self._end()
        else:
            self._is_written = True
            self.pump()

    def give_up(self) -> None:
        """Nobody took one end in time."""
        self._end()

    def _end(self) -> None:
        ends, self._ends = list(self._ends.values()), {}
        self._waiting.clear()
        self._on_over(self)
        for end in ends:
            end.finish()


class Channels:
    """All channels of an engine. `mint` makes ids and keys that cannot be guessed, `clock` tells seconds."""

    def __init__(self, mint: Callable[[], str], clock: Callable[[], float]) -> None:
        self._mint = mint
        self._clock = clock
        self._channels: dict[str, Channel] = {}
        self._made_at: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<Channels {len(self._channels)}>"

    def __len__(self) -> int:
        return len(self._channels)

    def answer(self, payload: Raw, _: Peer) -> dict[str, dict[str, str]]:
        """Run `engine::channels::create`. Raises `ValueError` for a payload that is none of its own."""
        wish = Wish() if is_empty(payload) else decode_value(payload, type=Wish)
        return self.create(wish.buffer_size)

    def create(self, buffer_size: int | None = None) -> dict[str, dict[str, str]]:
        """Make a channel; return the references of its two ends."""
        size = min(max(DEFAULT_BUFFER if buffer_size is None else buffer_size, 1), MAX_BUFFER)
        channel = Channel(self._mint(), self._mint(), size, self._forget)
        self._channels[channel.id] = channel
        self._made_at[channel.id] = self._clock()
        reference = {"channel_id": channel.id, "access_key": channel.key}
        return {"writer": reference | {"direction": "write"}, "reader": reference | {"direction": "read"}}

    def find(self, id: str, key: str) -> Channel | None:
        """Return the channel if the key is right."""
        channel = self._channels.get(id)
        if channel is None or not hmac.compare_digest(channel.key.encode(), key.encode()):
            return None
        return channel

    def sweep(self) -> None:
        """Give up channels of which an end was never taken."""
        now = self._clock()
        for channel in list(self._channels.values()):
            if not channel.is_complete and now - self._made_at[channel.id] > TTL:
                channel.give_up()

    def _forget(self, channel: Channel) -> None:
        self._channels.pop(channel.id, None)
        self._made_at.pop(channel.id, None)
