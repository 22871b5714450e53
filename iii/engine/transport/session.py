"""The base of all sessions: what a WebSocket connection carries after its handshake.

It is apart from `websocket.py` because that module loads the `websockets` library, which an engine without WebSocket
clients never needs.
"""

from __future__ import annotations

# Messages: opcode (TEXT or BINARY) and payload.
Received = list[tuple[int, bytes]]


class Session:
    """Gets the messages of one connection and its end. A method that is not overridden does nothing."""

    def open(self) -> None:
        """The handshake is done: the first message may be sent."""

    def on_messages(self, messages: Received) -> None:
        """A batch of messages came in."""

    def on_written(self, credit: int) -> None:
        """The kernel took `credit` bytes of messages, counting a newline for each."""

    def on_closed(self) -> None:
        """The client closed the connection, or is gone. Nothing is called any more."""
