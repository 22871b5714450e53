"""Channel bytes on a unix socket: each message is its kind (1 text, 2 bytes), its length in four bytes, and itself.

Pure. Both ends of the socket use it, after the lines that opened the channel.
"""

from __future__ import annotations

# The numbers that WebSocket frames give these kinds, so that a message passes from one carrier to the other as it is.
TEXT, BINARY = 1, 2
# The largest message of the public contract.
MAX_MESSAGE = 64 * 1024 * 1024
_HEAD = 5


class ChannelFrameError(ValueError):
    """The bytes are no messages. `messages` are those that came before them."""

    def __init__(self, text: str, messages: list[tuple[int, bytes]]) -> None:
        super().__init__(text)
        self.messages = messages


def frame(kind: int, payload: bytes) -> bytes:
    """Return one message as it goes over the socket."""
    return bytes([kind]) + len(payload).to_bytes(4, "big") + payload


class ChannelFrameSplitter:
    """Bytes in, whole messages out as `(kind, payload)`."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the messages completed by `data`. FrameError for what comes behind them and makes no sense."""
        buffer = self._buffer
        buffer += data
        messages: list[tuple[int, bytes]] = []
        start = 0
        while len(buffer) - start >= _HEAD:
            kind, size = buffer[start], int.from_bytes(buffer[start + 1 : start + _HEAD], "big")
            if kind not in (TEXT, BINARY) or size > MAX_MESSAGE:
                raise ChannelFrameError(f"a message of kind {kind} and {size} bytes", messages)
            end = start + _HEAD + size
            if end > len(buffer):
                break
            messages.append((kind, bytes(buffer[start + _HEAD : end])))
            start = end
        del buffer[:start]
        return messages
