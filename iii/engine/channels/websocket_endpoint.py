"""One end of a channel over a WebSocket: the session of `/ws/channels/{id}`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iii.engine.channels.channel import Channel, Direction
from iii.engine.transport.session import Received, Session

if TYPE_CHECKING:
    from iii.engine.transport.websocket import WebSocketConnection

# Unsent bytes at which a reader counts as congested: a few of the SDKs' frames of 64 KiB.
CONGESTED = 1024 * 1024


class ChannelSession(Session):
    """Session of the connection and end of the channel."""

    def __init__(self, connection: WebSocketConnection, channel: Channel, direction: Direction) -> None:
        self._connection = connection
        self._channel = channel
        self._direction: Direction = direction
        connection.may_be_silent = True  # a reader may be slow, and a paused writer's pongs are not read
        self.deliver = connection.send
        self.finish = connection.close
        self.pause = connection.pause
        self.resume = connection.resume

    def open(self) -> None:
        """Take the channel's end after the handshake; close if another connection has it."""
        if not self._channel.take(self._direction, self):
            self._connection.close()

    # Called by the connection

    def on_messages(self, messages: Received) -> None:
        """Write a batch to the channel; what a reader sends is ignored."""
        if self._direction == "write":
            for opcode, data in messages:
                self._channel.write(opcode, data)

    def on_written(self, credit: int) -> None:  # noqa: ARG002 - the signature of a session
        """The reader's socket took something: there may be room for more."""
        self._channel.pump()

    def on_closed(self) -> None:
        """The connection is gone."""
        self._channel.leave(self._direction)

    # Called by the channel

    @property
    def is_congested(self) -> bool:
        """Whether the reader is behind with what was sent to it."""
        return self._connection.unsent_bytes > CONGESTED
