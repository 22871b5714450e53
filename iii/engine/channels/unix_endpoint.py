"""Ends of channels over the unix socket: a connection whose first line is `channelopen`, bytes of the channel after it.

The socket's own buffers hold the parties back: a reader that is behind is not written to, a writer whose reader is
behind is not read from. The door takes connections over from the switchboard, and gives up channels that nobody took.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence

from iii.engine.channels.channel import Channels, Direction
from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol.codec import decode, encode, encode_error
from iii.protocol.frames import FrameError, FrameSplitter, frame
from iii.protocol.lines import Oversized
from iii.protocol.messages import ChannelOpen, ChannelOpened, Error, ErrorBody

_READ_SIZE = 256 * 1024
# What may wait for a reader here before its channel holds back: a few of the SDKs' pieces of 64 KiB.
CONGESTED = 512 * 1024
# How long a party may take to read its last bytes.
LINGER = 60.0
# Between two looks for channels that nobody took; they have minutes.
_SWEEP = 30.0


def request_in(lines: Sequence[bytes | Oversized]) -> ChannelOpen | None:
    """Return the `channelopen` that a connection's first lines are, None if it speaks otherwise."""
    first = lines[0]
    if not isinstance(first, bytes) or b"channelopen" not in first[:64]:
        return None
    try:
        message = decode(first)
    except RemoteProtocolError:
        return None
    return message if isinstance(message, ChannelOpen) else None


class ChannelDoor:
    """Where local parties enter channels."""

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._loop = asyncio.get_running_loop()
        self._sockets: set[ChannelSocket] = set()
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    def __repr__(self) -> str:
        return f"<ChannelDoor {len(self._sockets)} connections>"

    def open(self, fd: int, request: ChannelOpen) -> None:
        """Take over the connection `fd` and give it the end it asks for, or the reason why not."""
        end = ChannelSocket(fd, self._sockets.discard)
        self._sockets.add(end)
        channel = self._channels.find(request.channel_id, request.access_key)
        if request.direction not in ("read", "write"):
            end.refuse(ErrorCode.INVALID_MESSAGE, f"direction must be read or write, got {request.direction!r}")
        elif channel is None:
            end.refuse(ErrorCode.NOT_FOUND, "Channel not found")
        else:
            direction: Direction = "read" if request.direction == "read" else "write"
            end.on_left = lambda: channel.leave(direction)
            end.on_messages = channel.write if direction == "write" else _ignore
            end.on_room = channel.pump
            end.open()
            if not channel.take(direction, end):
                end.on_left = _nothing
                end.refuse(ErrorCode.NOT_FOUND, f"somebody has the {direction} end of this channel already")

    def _sweep(self) -> None:
        self._channels.sweep()
        self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    def close(self) -> None:
        """Close every connection: the engine stops."""
        self._sweeper.cancel()
        for end in list(self._sockets):
            end.close()


def _nothing() -> None:
    """Nobody listens."""


def _ignore(_: int, __: bytes) -> None:
    """A reader has nothing to say."""


class ChannelSocket:
    """One party's connection. Owns the descriptor, reads and writes without blocking."""

    def __init__(self, fd: int, on_closed: Callable[[ChannelSocket], None]) -> None:
        self._fd = fd
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._splitter = FrameSplitter()
        self._outgoing: deque[memoryview] = deque()
        self._backlog = 0
        self._is_reading = False
        self._is_waiting_for_room = False
        self._is_finishing = False
        self.on_messages: Callable[[int, bytes], None] = _ignore
        self.on_room: Callable[[], None] = _nothing
        self.on_left: Callable[[], None] = _nothing

    def open(self) -> None:
        """Have the answer ready, ahead of everything else, and read."""
        self._queue(encode(ChannelOpened()) + b"\n")
        self._loop.call_soon(self._flush)
        self.resume()

    def refuse(self, code: str, message: str) -> None:
        """Say why not, and close."""
        self._outgoing.clear()
        self._queue(encode(Error(encode_error(ErrorBody(code, message)))) + b"\n")
        self.finish()

    # What the channel asks

    @property
    def is_congested(self) -> bool:
        """Whether what was delivered is piling up."""
        return self._backlog > CONGESTED

    def deliver(self, opcode: int, data: bytes) -> None:
        """Send one message."""
        self._queue(frame(opcode, data))
        self._flush()

    def finish(self) -> None:
        """Close after what was delivered; a party that does not read it is left behind."""
        self._is_finishing = True
        self._loop.call_later(LINGER, self.close)
        self._flush()

    def pause(self) -> None:
        """Stop reading."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read again."""
        if not self._is_reading and self._fd >= 0:
            self._is_reading = True
            self._loop.add_reader(self._fd, self._on_readable)

    # Input and output

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
        except FrameError as error:
            messages, is_over = error.messages, True
        for kind, payload in messages:
            self.on_messages(kind, payload)
        if is_over:
            self.close()

    def _queue(self, data: bytes) -> None:
        self._outgoing.append(memoryview(data))
        self._backlog += len(data)

    def _flush(self) -> None:
        if self._is_waiting_for_room or self._fd < 0:
            return
        while self._outgoing:
            try:
                count = os.write(self._fd, self._outgoing[0])
            except (BlockingIOError, InterruptedError):
                self._is_waiting_for_room = True
                self._loop.add_writer(self._fd, self._on_writable)
                return
            except OSError:
                self.close()
                return
            self._backlog -= count
            if count < len(self._outgoing[0]):
                self._outgoing[0] = self._outgoing[0][count:]
            else:
                self._outgoing.popleft()
        if self._is_finishing:
            self.close()

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._fd)
        self._is_waiting_for_room = False
        self._flush()
        if not self.is_congested:
            self.on_room()

    def close(self) -> None:
        """Close the connection; whoever is at the other end of the channel hears of it."""
        if self._fd < 0:
            return
        self.pause()
        if self._is_waiting_for_room:
            self._loop.remove_writer(self._fd)
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1
        self._outgoing.clear()
        self._backlog = 0
        self._on_closed(self)
        self.on_left()
