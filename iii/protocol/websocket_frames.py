"""RFC 6455 as both ends of a WebSocket need it: opcodes, size limits, the header of a frame. Pure.

The engine and the SDK share this module, so it needs only the standard library. Splitting received bytes is not here:
the engine gets masked frames from clients, the SDK unmasked ones from the engine, and each treats them differently.
"""

from __future__ import annotations

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
# Bits of a header's first byte, and of its second.
FINAL, RESERVED = 0x80, 0x70
MASKED = 0x80
# The largest message of the public contract.
MAX_MESSAGE = 64 * 1024 * 1024
# A larger frame is sent as fragments: the Rust SDK refuses it.
MAX_FRAME = 16 * 1024 * 1024


def header(first: int, size: int, masked: int = 0) -> bytes:
    """Return the header of a frame with `size` bytes of payload (RFC 6455, 5.2).

    `first` is the opcode, with `FINAL` set on the last frame of a message. `masked` is 0 for the engine's frames,
    `MASKED` for a client's; the client's mask follows the header.
    """
    if size < 126:
        return bytes((first, masked | size))
    if size < 0x10000:
        return bytes((first, masked | 126)) + size.to_bytes(2, "big")
    return bytes((first, masked | 127)) + size.to_bytes(8, "big")
