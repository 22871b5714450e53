"""Ends of channels over the unix socket: a connection whose first line is `channelopen`, then the channel's messages.

The buffers of the socket carry the back-pressure: a reader that is behind is not written to, and the writer of such a
reader is not read from. The acceptor takes over connections that were accepted as local peers, and closes channels of
which an end was never taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from iii.engine.channels.channel import Channel, Channels, Direction
from iii.engine.routing.budget import Budget
from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol.codec import decode, encode, encode_error
from iii.protocol.frames import ChannelFrameError, ChannelFrameSplitter, frame
from iii.protocol.lines import Oversized
from iii.protocol.messages import ChannelOpen, ChannelOpened, Error, ErrorBody

_READ_SIZE = 256 * 1024
# Unsent bytes at which a reader counts as congested: a few of the SDKs' pieces of 64 KiB.
CONGESTED = 512 * 1024
# How long a reader may take to read its last bytes.
FINISH_TIMEOUT = 60.0
# How often channels of which an end was never taken are looked for; they have minutes.
_SWEEP_INTERVAL = 30.0


def request_in(lines: Sequence[bytes | Oversized]) -> ChannelOpen | None:
    """Return the `channelopen` in the first of a connection's lines, None for any other message."""
    first = lines[0]
    if not isinstance(first, bytes) or b"channelopen" not in first[:64]:
        return None
    try:
        message = decode(first)
    except RemoteProtocolError:
        return None
    return message if isinstance(message, ChannelOpen) else None


class Poller(Protocol):
    """Calls back when a descriptor can be read or written (`iii/engine/transport/poller.py`).

    Not the event loop's: uvloop calls back once for a connection that was reset, with what came before it still unread.
    """

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None: ...

    def remove_reader(self, fd: int) -> object: ...

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None: ...

    def remove_writer(self, fd: int) -> object: ...


class ChannelAcceptor:
    """Opens ends of channels for local connections."""

    def __init__(self, channels: Channels, poller: Poller) -> None:
        self._channels = channels
        self._poller = poller
        self._loop = asyncio.get_running_loop()
        self._ends: set[UnixChannelEnd] = set()
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)

    def open(self, fd: int, request: ChannelOpen) -> None:
        """Take over the connection `fd`: attach it to the end that it asks for, or answer with an error and close."""
        end = UnixChannelEnd(fd, self._ends.discard, self._poller, self._channels.budget)
        self._ends.add(end)
        channel = self._channels.find(request.channel_id, request.access_key)
        if request.direction not in ("read", "write"):
            end.reject(ErrorCode.INVALID_MESSAGE, f"direction must be read or write, got {request.direction!r}")
        elif channel is None:
            end.reject(ErrorCode.NOT_FOUND, "Channel not found")
        else:
            end.open(channel, "read" if request.direction == "read" else "write")

    def _sweep(self) -> None:
        self._channels.sweep()
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)

    def close(self) -> None:
        self._sweeper.cancel()
        for end in list(self._ends):
            end.close()


class UnixChannelEnd:
    """A `ChannelEnd`: the connection of a reader or a writer. Owns the descriptor, never blocks.

    A `Holder` of the budget: of the unfinished message, and of what the reader has not read.
    """

    def __init__(
        self, fd: int, on_closed: Callable[[UnixChannelEnd], None], poller: Poller, budget: Budget | None = None
    ) -> None:
        self.held = 0
        self._fd = fd
        self._poller = poller
        self._budget = budget or Budget()
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._direction: Direction = "read"
        self._splitter = ChannelFrameSplitter()
        self._outgoing: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._is_reading = False
        self._is_waiting_for_room = False
        self._is_finishing = False

    def open(self, channel: Channel, direction: Direction) -> None:
        """Take an end of the channel and answer `channelopened`; if another connection has the end, reject."""
        self._channel, self._direction = channel, direction
        # Queued now, so that it precedes what the channel delivers while its end is taken.
        self._queue(encode(ChannelOpened()) + b"\n")
        self._loop.call_soon(self._flush)
        self.resume()
        if not channel.take(direction, self):
            self._channel = None
            self.reject(ErrorCode.NOT_FOUND, f"somebody has the {direction} end of this channel already")

    def reject(self, code: str, message: str) -> None:
        self._outgoing.clear()
        self._queue(encode(Error(encode_error(ErrorBody(code, message)))) + b"\n")
        self.finish()

    @property
    def is_congested(self) -> bool:
        return self._unsent_bytes > CONGESTED

    def deliver(self, opcode: int, data: bytes) -> None:
        self._queue(frame(opcode, data))
        self._flush()

    def finish(self) -> None:
        """Close when everything delivered is sent, at the latest after `FINISH_TIMEOUT`."""
        self._is_finishing = True
        self._loop.call_later(FINISH_TIMEOUT, self.close)
        self._flush()

    def pause(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._poller.remove_reader(self._fd)

    def resume(self) -> None:
        if not self._is_reading and self._fd >= 0:
            self._is_reading = True
            self._poller.add_reader(self._fd, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        is_over = not data
        try:
            messages = self._splitter.feed(data)
        except ChannelFrameError as error:
            messages, is_over = error.messages, True
        if self._channel is not None and self._direction == "write":  # what a reader sends is ignored
            for opcode, payload in messages:
                self._channel.write(opcode, payload)
        self._hold()
        # A writer is not paused in the middle of its message: only its own further bytes can end that message.
        if is_over or (self.held and self._budget.is_exhausted_by(self.held)):
            self.close()

    def _hold(self) -> None:
        """Hold a large unfinished message, and what is unsent."""
        size = self._splitter.pending + self._unsent_bytes
        if self._fd >= 0 and (self.held or size > _READ_SIZE):
            self._budget.set(self, size)

    def _queue(self, data: bytes) -> None:
        self._outgoing.append(memoryview(data))
        self._unsent_bytes += len(data)

    def _flush(self) -> None:
        if self._is_waiting_for_room:
            self._hold()
        if self._is_waiting_for_room or self._fd < 0:
            return
        while self._outgoing:
            try:
                count = os.write(self._fd, self._outgoing[0])
            except (BlockingIOError, InterruptedError):
                self._is_waiting_for_room = True
                self._poller.add_writer(self._fd, self._on_writable)
                self._hold()
                return
            except OSError:
                self.close()
                return
            self._unsent_bytes -= count
            if count < len(self._outgoing[0]):
                self._outgoing[0] = self._outgoing[0][count:]
            else:
                self._outgoing.popleft()
        self._hold()
        if self._is_finishing:
            self.close()

    def _on_writable(self) -> None:
        self._poller.remove_writer(self._fd)
        self._is_waiting_for_room = False
        self._flush()
        if self._channel is not None and not self.is_congested:
            self._channel.pump()

    def close(self) -> None:
        if self._fd < 0:
            return
        self.pause()
        if self._is_waiting_for_room:
            self._poller.remove_writer(self._fd)
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1
        self._outgoing.clear()
        self._unsent_bytes = 0
        self._splitter = ChannelFrameSplitter()
        self._budget.set(self, 0)
        self._on_closed(self)
        if self._channel is not None:
            self._channel.leave(self._direction)
