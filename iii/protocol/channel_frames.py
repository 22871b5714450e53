"""Frames of a channel on a unix socket: a byte for the kind (1 text, 2 binary), four for the length, the message.

Pure. Engine and SDK both write and read them, after the lines that open the channel.
"""

from __future__ import annotations

# The opcodes of WebSocket frames (RFC 6455), so that a message passes between socket and WebSocket as it is.
TEXT, BINARY = 1, 2
# Bytes of the largest message (public contract).
MAX_MESSAGE = 64 * 1024 * 1024
_HEAD = 5


class ChannelFrameError(ValueError):
    """The bytes are no frame. `messages` are those completed before."""

    def __init__(self, text: str, messages: list[tuple[int, bytes]]) -> None:
        super().__init__(text)
        self.messages = messages


def frame(kind: int, payload: bytes) -> bytes:
    """Return the frame of one message."""
    return bytes([kind]) + len(payload).to_bytes(4, "big") + payload


class ChannelFrameSplitter:
    """Bytes in, whole messages out as `(kind, payload)`."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the messages completed by `data`. ChannelFrameError, with the messages before it, for a bad frame."""
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
