"""RFC 6455 as a client needs it: the handshake's text, frames out, messages in. Pure.

Server frames are unmasked, client frames masked; no extension is offered. What the engine's side of a WebSocket has in
common with it is in `iii/protocol/frames.py`.
"""

from __future__ import annotations

import base64
import hashlib

from iii.protocol.frames import CLOSE, CONTINUATION, FINAL, MASKED, MAX_FRAME, MAX_MESSAGE, RESERVED, header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketError(OSError):
    """The server broke the WebSocket protocol, refused the handshake, or closed the connection."""


def request_bytes(host: str, target: str, key: str, headers: Mapping[str, str]) -> bytes:
    """Return the handshake request; `target` is path and query, `key` 16 random bytes in base64."""
    lines = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        **headers,
    }
    if any("\r" in text or "\n" in text for pair in lines.items() for text in pair):
        raise ValueError("a header must not hold a line break")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1")


def check_response(head: bytes, key: str) -> None:
    """Accept the server's response head. WebSocketError with its status line if it refuses."""
    status, *lines = head.decode("latin-1").split("\r\n")
    if status.split(" ", 2)[1:2] != ["101"]:
        raise WebSocketError(f"the server refused the WebSocket: {status}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    expected = base64.b64encode(hashlib.sha1(key.encode() + _ACCEPT_SALT, usedforsecurity=False).digest()).decode()
    if fields.get("sec-websocket-accept") != expected:
        raise WebSocketError("the server's handshake does not answer ours")


def frames(opcode: int, payload: bytes, mask: bytes) -> bytes:
    """Return a message as a masked frame, or as several when it is larger than one may be."""
    result: list[bytes] = []
    for start in range(0, len(payload) or 1, MAX_FRAME):
        part = payload[start : start + MAX_FRAME]
        first = (CONTINUATION if start else opcode) | (FINAL if start + MAX_FRAME >= len(payload) else 0)
        result += header(first, len(part), MASKED), mask, masked(part, mask)
    return b"".join(result)


def masked(payload: bytes, mask: bytes) -> bytes:
    """Return the payload under the mask: one big XOR, a hundred times faster than a loop over bytes."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class ServerFrameReader:
    """Bytes in, whole messages out as `(opcode, payload)`; control frames come between fragments."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._fragments = bytearray()
        self._opcode = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the messages completed by `data`. WebSocketError for bytes that are no valid frames."""
        self._buffer += data
        messages = []
        while (taken := self._next()) is not None:
            is_final, opcode, payload = taken
            if opcode >= CLOSE:
                messages.append((opcode, payload))
                continue
            self._opcode = opcode or self._opcode
            self._check_size(len(self._fragments) + len(payload))
            self._fragments += payload
            if is_final:
                messages.append((self._opcode, bytes(self._fragments)))
                self._fragments.clear()
        return messages

    def _next(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        if buffer[0] & RESERVED or buffer[1] & MASKED:
            raise WebSocketError("the server sent a frame with an extension or a mask")
        if len(buffer) < start:
            return None
        self._check_size(size)
        if len(buffer) < start + size:
            return None
        first, payload = buffer[0], bytes(buffer[start : start + size])
        del buffer[: start + size]
        return bool(first & FINAL), first & 0x0F, payload

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise WebSocketError(f"a message of {size} bytes is over the limit of {self._limit}")
