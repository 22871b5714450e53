"""Channels: streams of messages from one writer to one reader, outside of calls. Pure.

The writer's and the reader's end are each taken once, in either order, over a WebSocket or the unix socket. The channel
holds what the writer sent until the reader takes it, up to a bound; then it pauses the writer, and the back-pressure of
the writer's transport does the rest. The key in a reference is the only credential for an end.
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
# Bytes at which the writer is paused: a message may have 64 MiB, so the number of messages alone bounds nothing.
MAX_BYTES = 8 * 1024 * 1024
# Age at which a channel is closed if one of its ends was never taken.
OPEN_TIMEOUT = 300.0


class CreateChannel(Struct):
    """The payload of `engine::channels::create`."""

    buffer_size: int | None = None


class ChannelEnd(Protocol):
    """The connection of the reader or the writer."""

    @property
    def is_congested(self) -> bool:
        """Whether the reader is behind with what was sent to it."""

    def deliver(self, opcode: int, data: bytes) -> None: ...

    def finish(self) -> None:
        """Close the connection when everything delivered is sent."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Channel:
    """One channel. `on_closed` is called once, when it has ended."""

    def __init__(self, id: str, key: str, buffer_size: int, on_closed: Callable[[Channel], object]) -> None:
        self.id = id
        self.key = key
        self._buffer_size = buffer_size
        self._on_closed = on_closed
        self._ends: dict[Direction, ChannelEnd] = {}
        self._taken: set[Direction] = set()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._has_writer_left = False  # then no more messages follow

    @property
    def is_open(self) -> bool:
        return len(self._taken) == 2

    def take(self, direction: Direction, end: ChannelEnd) -> bool:
        """Attach a connection to one end; return False if the end was taken before."""
        if direction in self._taken:
            return False
        self._taken.add(direction)
        self._ends[direction] = end
        if direction == "read":
            self.pump()
        return True

    def write(self, opcode: int, data: bytes) -> None:
        self._waiting.append((opcode, data))
        self._bytes += len(data)
        self.pump()

    def pump(self) -> None:
        """Deliver waiting messages until the reader is congested; pause or resume the writer accordingly."""
        reader, writer = self._ends.get("read"), self._ends.get("write")
        while reader is not None and self._waiting and not reader.is_congested:
            opcode, data = self._waiting.popleft()
            self._bytes -= len(data)
            reader.deliver(opcode, data)
        if writer is not None:
            is_full = len(self._waiting) >= self._buffer_size or self._bytes > MAX_BYTES
            writer.pause() if is_full else writer.resume()
        elif reader is not None and self._has_writer_left and not self._waiting:
            self.close()

    def leave(self, direction: Direction) -> None:
        """Detach an end. The reader still gets what the writer sent before; without its reader, the channel closes."""
        if self._ends.pop(direction, None) is None:
            return
        if direction == "read":
            self.close()
        else:
            self._has_writer_left = True
            self.pump()

    def close(self) -> None:
        """Close both ends and drop what was not delivered."""
        ends, self._ends = list(self._ends.values()), {}
        self._waiting.clear()
        self._on_closed(self)
        for end in ends:
            end.finish()


class Channels:
    """All channels of an engine. `mint` makes ids and keys that cannot be guessed, `clock` counts seconds."""

    def __init__(self, mint: Callable[[], str], clock: Callable[[], float]) -> None:
        self._mint = mint
        self._clock = clock
        self._channels: dict[str, tuple[Channel, float]] = {}  # with the time of creation

    def answer(self, payload: Raw, _: Peer) -> dict[str, dict[str, str]]:
        """Run `engine::channels::create`. Raises `ValueError` for an invalid payload."""
        request = CreateChannel() if is_empty(payload) else decode_value(payload, type=CreateChannel)
        return self.create(request.buffer_size)

    def create(self, buffer_size: int | None = None) -> dict[str, dict[str, str]]:
        """Create a channel; return the references to its two ends."""
        size = min(max(DEFAULT_BUFFER if buffer_size is None else buffer_size, 1), MAX_BUFFER)
        channel = Channel(self._mint(), self._mint(), size, lambda closed: self._channels.pop(closed.id, None))
        self._channels[channel.id] = channel, self._clock()
        reference = {"channel_id": channel.id, "access_key": channel.key}
        return {"writer": reference | {"direction": "write"}, "reader": reference | {"direction": "read"}}

    def find(self, id: str, key: str) -> Channel | None:
        """Return the channel, None if there is none or the key is wrong."""
        channel, _ = self._channels.get(id, (None, 0.0))
        is_right = channel is not None and hmac.compare_digest(channel.key.encode(), key.encode())
        return channel if is_right else None

    def sweep(self) -> None:
        """Close channels of which an end was not taken in time."""
        now = self._clock()
        for channel, created_at in list(self._channels.values()):
            if not channel.is_open and now - created_at > OPEN_TIMEOUT:
                channel.close()
