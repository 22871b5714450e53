"""Channels: streams of messages from one writer to one reader, outside of calls. Pure.

The writer's and the reader's end are each taken once, in either order, over a WebSocket or the unix socket. The channel
holds what the writer sent until the reader takes it, up to a bound; then it pauses the writer, and the back-pressure of
the writer's transport does the rest. What waits in all channels that one peer has made is bounded together: beyond its
share of the engine's memory their writers pause. The key in a reference is the only credential for an end.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

from msgspec import Raw, Struct

from iii.engine.routing.budget import MESSAGE_OVERHEAD, Budget
from iii.engine.routing.peer import Peer
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import decode_value
from iii.protocol.messages import is_empty

Direction = Literal["read", "write"]

# The contract's bounds of `buffer_size`, in messages.
DEFAULT_BUFFER, MAX_BUFFER = 64, 1024
# Bytes at which the writer is paused: a message may have 64 MiB, so the number of messages alone bounds nothing.
MAX_BYTES = 8 * 1024 * 1024
# Channels of one peer, and of all peers, that exist at the same time.
MAX_CHANNELS_PER_PEER, MAX_CHANNELS = 4096, 16_384
# Bytes that a channel costs beside what waits in it.
CHANNEL_OVERHEAD = 2048
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


class Creator:
    """What the engine holds for all channels that one peer has made. `paused` are those whose writers wait for room."""

    def __init__(self) -> None:
        self.held = 0
        self.channels = 0
        self.paused: set[Channel] = set()


class Channel:
    """One channel. `on_closed` is called once, when it has ended."""

    def __init__(
        self,
        id: str,
        key: str,
        buffer_size: int,
        on_closed: Callable[[Channel], object],
        creator: Creator | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.id = id
        self.key = key
        self.creator = creator or Creator()
        self._budget = budget or Budget()
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
        self._budget.hold(self.creator, len(data) + MESSAGE_OVERHEAD)
        self.pump()

    def pump(self) -> None:
        """Deliver waiting messages until the reader is congested; pause or resume the writer accordingly."""
        reader = self._ends.get("read")
        while reader is not None and self._waiting and not reader.is_congested:
            opcode, data = self._waiting.popleft()
            self._bytes -= len(data)
            self._budget.release(self.creator, len(data) + MESSAGE_OVERHEAD)
            reader.deliver(opcode, data)
        if "write" in self._ends:
            self.pace_writer()
            self._resume_others()
        elif reader is not None and self._has_writer_left and not self._waiting:
            self.close()

    def pace_writer(self) -> None:
        """Pause the writer while the channel, or all channels of its creator, hold all they may; else resume it."""
        writer = self._ends.get("write")
        if writer is None:
            return
        if self._budget.refuses(self.creator.held):
            self.creator.paused.add(self)
            writer.pause()
        elif len(self._waiting) >= self._buffer_size or self._bytes > MAX_BYTES:
            writer.pause()
        else:
            writer.resume()

    def _resume_others(self) -> None:
        """Room in one channel is room for the others of the same creator."""
        if self.creator.paused and not self._budget.refuses(self.creator.held):
            paused, self.creator.paused = self.creator.paused, set()
            for channel in paused:
                channel.pace_writer()

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
        self._budget.release(self.creator, self._bytes + MESSAGE_OVERHEAD * len(self._waiting))
        self._waiting.clear()
        self._bytes = 0
        self.creator.paused.discard(self)
        self._on_closed(self)
        self._resume_others()
        for end in ends:
            end.finish()


class Channels:
    """All channels of an engine. `mint` makes ids and keys that cannot be guessed, `clock` counts seconds."""

    def __init__(self, mint: Callable[[], str], clock: Callable[[], float], budget: Budget | None = None) -> None:
        self._mint = mint
        self._clock = clock
        self.budget = budget or Budget()
        self._channels: dict[str, tuple[Channel, float]] = {}  # with the time of creation
        self._creators: dict[str, Creator] = {}  # by peer id, while they have channels

    def answer(self, payload: Raw, origin: Peer) -> dict[str, dict[str, str]]:
        """Run `engine::channels::create`. Raises `ValueError` for an invalid payload, `InvocationError` at a limit."""
        request = CreateChannel() if is_empty(payload) else decode_value(payload, type=CreateChannel)
        return self.create(request.buffer_size, origin.id)

    def create(self, buffer_size: int | None = None, peer_id: str = "") -> dict[str, dict[str, str]]:
        """Create a channel for a peer; return the references to its two ends."""
        creator = self._creators.get(peer_id) or Creator()
        if creator.channels >= MAX_CHANNELS_PER_PEER or len(self._channels) >= MAX_CHANNELS:
            text = (
                f"there are {len(self._channels)} channels, {creator.channels} of this worker; at most "
                f"{MAX_CHANNELS_PER_PEER} for each and {MAX_CHANNELS} in all: use or close some first"
            )
            raise InvocationError(ErrorCode.LIMIT_EXCEEDED, text)
        size = min(max(DEFAULT_BUFFER if buffer_size is None else buffer_size, 1), MAX_BUFFER)
        channel = Channel(
            self._mint(), self._mint(), size, lambda closed: self._forget(closed, peer_id), creator, self.budget
        )
        self._creators[peer_id] = creator
        creator.channels += 1
        self.budget.hold(creator, CHANNEL_OVERHEAD)
        self._channels[channel.id] = channel, self._clock()
        reference = {"channel_id": channel.id, "access_key": channel.key}
        return {"writer": reference | {"direction": "write"}, "reader": reference | {"direction": "read"}}

    def _forget(self, channel: Channel, peer_id: str) -> None:
        if self._channels.pop(channel.id, None) is not None:
            self.budget.release(channel.creator, CHANNEL_OVERHEAD)
            channel.creator.channels -= 1
            if not channel.creator.channels:
                del self._creators[peer_id]

    def find(self, id: str, key: str) -> Channel | None:
        """Return the channel, None if there is none or the key is wrong."""
        channel, _ = self._channels.get(id, (None, 0.0))
        is_right = channel is not None and hmac.compare_digest(channel.key.encode(), key.encode())
        return channel if is_right else None

    def sweep(self) -> None:
        """Close channels of which an end was not taken in time, and let writers go on that waited for memory."""
        now = self._clock()
        for channel, created_at in list(self._channels.values()):
            if not channel.is_open and now - created_at > OPEN_TIMEOUT:
                channel.close()
        for creator in list(self._creators.values()):
            paused, creator.paused = creator.paused, set()
            for channel in paused:
                channel.pace_writer()
