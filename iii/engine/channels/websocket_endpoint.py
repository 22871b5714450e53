"""One end of a channel over a WebSocket: the endpoint of `/ws/channels/{id}`. Called by the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iii.engine.channels.channel import Channel, Direction

if TYPE_CHECKING:
    from iii.engine.transport.websocket import Received, WebSocket

# What may pile up in a reader's socket before its channel holds back: a few of the SDKs' 64 KiB frames.
CONGESTED = 1024 * 1024


class ChannelLink:
    """Endpoint of the connection and end of the channel."""

    def __init__(self, connection: WebSocket, channel: Channel, direction: Direction) -> None:
        self._connection = connection
        self._channel = channel
        self._direction: Direction = direction
        connection.is_patient = True  # a reader may be slow, and a paused writer cannot show that it lives

    def open(self) -> None:
        """The handshake is done: take the end, or leave if somebody has it."""
        if not self._channel.take(self._direction, self):
            self._connection.close()

    # What the connection tells

    def on_messages(self, messages: Received) -> None:
        """Only the writer has something to say."""
        if self._direction == "write":
            for opcode, data in messages:
                self._channel.write(opcode, data)

    def on_written(self, credit: int) -> None:  # noqa: ARG002 - the endpoint's signature
        """The reader took something."""
        self._channel.pump()

    def on_closed(self) -> None:
        """The party left."""
        self._channel.leave(self._direction)

    # What the channel asks

    @property
    def is_congested(self) -> bool:
        """Whether the socket's buffers are full."""
        return self._connection.backlog > CONGESTED

    def deliver(self, opcode: int, data: bytes) -> None:
        """Send one message."""
        self._connection.send(opcode, data)

    def finish(self) -> None:
        """Close the connection after what was delivered."""
        self._connection.close()

    def pause(self) -> None:
        """Stop reading."""
        self._connection.pause()

    def resume(self) -> None:
        """Read again."""
        self._connection.resume()
