"""Frames of a WebSocket (RFC 6455), and of a channel on a unix socket, as both of its ends need them. Pure.

A channel's frame is a byte for the kind (1 text, 2 binary), four for the length, and the message; frames follow the
lines that open the channel. The engine and the SDK share this module, so it needs only the standard library. Splitting
a WebSocket's bytes is not here: the engine gets masked frames from clients, the SDK unmasked ones from the engine, and
each treats them differently.
"""

from __future__ import annotations

# The opcodes of WebSocket frames. Two are kinds of channel frames too: a message passes between the two as it is.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
# Bits of a WebSocket header's first byte, and of its second.
FINAL, RESERVED = 0x80, 0x70
MASKED = 0x80
# Bytes of the largest message (public contract).
MAX_MESSAGE = 64 * 1024 * 1024
# A larger WebSocket frame is sent as fragments: the Rust SDK refuses it.
MAX_FRAME = 16 * 1024 * 1024
_HEAD = 5  # bytes of a channel frame before its message


def header(first: int, size: int, masked: int = 0) -> bytes:
    """Return the header of a WebSocket frame with `size` bytes of payload (RFC 6455, 5.2).

    `first` is the opcode, with `FINAL` set on the last frame of a message. `masked` is 0 for the engine's frames,
    `MASKED` for a client's; the client's mask follows the header.
    """
    if size < 126:
        return bytes((first, masked | size))
    if size < 0x10000:
        return bytes((first, masked | 126)) + size.to_bytes(2, "big")
    return bytes((first, masked | 127)) + size.to_bytes(8, "big")


class ChannelFrameError(ValueError):
    """The bytes are no frame. `messages` are those completed before."""

    def __init__(self, text: str, messages: list[tuple[int, bytes]]) -> None:
        super().__init__(text)
        self.messages = messages


def frame(kind: int, payload: bytes) -> bytes:
    """Return the channel frame of one message."""
    return bytes([kind]) + len(payload).to_bytes(4, "big") + payload


class ChannelFrameSplitter:
    """Bytes in, whole messages out as `(kind, payload)`."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of the unfinished message."""
        return len(self._buffer)

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
