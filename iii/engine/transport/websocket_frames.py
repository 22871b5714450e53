"""WebSocket frames as bytes: what we send, and the plain ones we receive. Pure.

The library (see websocket.py) knows the whole of RFC 6455. This module holds only what is worth doing without it: the
frames of a batch of lines joined into few writes, and the unfragmented text frames that almost all traffic consists
of, unmasked at five times its speed. Everything else that comes in is left to the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

# Bytes to write, and how many bytes of lines (newlines included) they carry.
Chunk = tuple[bytes, int]
Unmask = Callable[[bytes, bytes], bytes]

# One message over a WebSocket; the splitter keeps that much of one client.
MAX_MESSAGE = 64 * 1024 * 1024
# The Rust client refuses a frame over 16 MiB; messages may be larger, so those go in fragments.
MAX_FRAME = 16 * 1024 * 1024
FRAGMENT = 8 * 1024 * 1024
# Lines larger than this are written from where they lie instead of being joined.
JOIN_LIMIT = 64 * 1024

TEXT, BINARY, _CONTINUATION = 0x1, 0x2, 0x0
_FIN = 0x80
_MASKED = 0x80
_RESERVED = 0x70
_PLAIN = _FIN | TEXT


def header(opcode: int, size: int, *, is_last: bool = True) -> bytes:
    """Return the header of a frame from the server, which is never masked (RFC 6455, 5.2)."""
    first = opcode | (_FIN if is_last else 0)
    if size < 126:
        return bytes((first, size))
    if size < 0x10000:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def chunks_of(lines: Iterable[bytes]) -> list[Chunk]:
    """Return the writes that carry one text message a line."""
    chunks: list[Chunk] = []
    small: list[bytes] = []
    credit = 0
    for line in lines:
        if len(line) <= JOIN_LIMIT:
            small += (header(TEXT, len(line)), line)
            credit += len(line) + 1
            continue
        if small:
            chunks.append((b"".join(small), credit))
            small, credit = [], 0
        chunks += message(TEXT, line, len(line) + 1)
    if small:
        chunks.append((b"".join(small), credit))
    return chunks


def message(opcode: int, data: bytes, credit: int = 0) -> list[Chunk]:
    """Return the writes of one message; `credit` is what its last byte is worth (see `Chunk`)."""
    size = len(data)
    if size <= MAX_FRAME:
        return [(header(opcode, size), 0), (data, credit)]
    chunks: list[Chunk] = []
    for start in range(0, size, FRAGMENT):
        part = data[start : start + FRAGMENT]
        is_last = start + FRAGMENT >= size
        chunks.append((header(_CONTINUATION if start else opcode, len(part), is_last=is_last), 0))
        chunks.append((part, credit if is_last else 0))
    return chunks


class FrameSplitter:
    """Feed bytes in, get frames out: `(True, payload)` for a plain text frame, `(False, frame)` for any other.

    Whole frames only, so that the library is never left in the middle of one. From the first frame that breaks the
    protocol or is over `max_size` on, everything comes out as it is: the library knows what to answer.
    """

    __slots__ = ("_is_broken", "_max_size", "_needed", "_tail", "_unmask")

    def __init__(self, unmask: Unmask, max_size: int) -> None:
        self._unmask = unmask
        self._max_size = max_size
        self._tail = bytearray()
        self._needed = 0  # bytes of `_tail` that make a whole frame
        self._is_broken = False

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._tail)

    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """Return the frames that `data` completes."""
        if self._tail:
            self._tail += data
            if len(self._tail) < self._needed:
                return []
            data, self._tail = bytes(self._tail), bytearray()
        frames: list[tuple[bool, bytes]] = []
        position, end = 0, len(data)
        while position < end:
            start, stop = self._bounds(data, position, end)
            if stop > end:
                self._tail += data[position:]
                self._needed = stop - position
                break
            if data[position] == _PLAIN and not self._is_broken:
                frames.append((True, self._unmask(data[start:stop], data[start - 4 : start])))
            else:
                frames.append((False, data[position:stop]))
            position = stop
        return frames

    def _bounds(self, data: bytes, position: int, end: int) -> tuple[int, int]:
        """Return where the frame's payload starts and ends; an end behind `end` says how much is needed to know."""
        if self._is_broken:
            return position, end
        if end - position < 2:
            return position, position + 2
        size = data[position + 1] & ~_MASKED
        start = position + 6
        if size > 125:
            width = 2 if size == 126 else 8
            start += width
            if end < start - 4:
                return position, start - 4
            size = int.from_bytes(data[position + 2 : position + 2 + width], "big")
        if size > self._max_size or not data[position + 1] & _MASKED or data[position] & _RESERVED:
            self._is_broken = True
            return position, end
        return start, start + size


def one_line(message: bytes) -> bytes:
    """Return a JSON message as it may travel on a pipe: a raw newline in JSON is only ever whitespace."""
    return message.replace(b"\n", b" ") if b"\n" in message else message
