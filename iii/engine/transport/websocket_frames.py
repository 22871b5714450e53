"""WebSocket frames without the `websockets` library: those the engine sends, and the plain text it receives. Pure.

The library (see `websocket.py`) implements the whole of RFC 6455. This module does only what is worth doing without it:
it joins the frames of a batch of lines into few writes, and unmasks unfragmented text frames, almost all of the
traffic, at five times the library's speed. Every other frame that comes in goes to the library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from iii.protocol.frames import CONTINUATION, FINAL, MASKED, MAX_FRAME, RESERVED, TEXT, header

# Bytes to write, and how many bytes of lines (newlines included) they carry.
Chunk = tuple[bytes, int]

# The payload of one frame of a fragmented message.
FRAGMENT = 8 * 1024 * 1024
# Lines larger than this are written as they are instead of being copied into a joined buffer.
JOIN_LIMIT = 64 * 1024
# First byte of a text message in one frame.
_PLAIN = FINAL | TEXT


def text_chunks(lines: Iterable[bytes]) -> list[Chunk]:
    """Return the buffers to write for one text message per line."""
    chunks: list[Chunk] = []
    small: list[bytes] = []
    credit = 0
    for line in lines:
        if len(line) <= JOIN_LIMIT:
            small += (header(_PLAIN, len(line)), line)
            credit += len(line) + 1
            continue
        if small:
            chunks.append((b"".join(small), credit))
            small, credit = [], 0
        chunks += message_chunks(TEXT, line, len(line) + 1)
    if small:
        chunks.append((b"".join(small), credit))
    return chunks


def message_chunks(opcode: int, data: bytes, credit: int = 0) -> list[Chunk]:
    """Return the buffers to write for one message; `credit` is the second half of the last `Chunk`."""
    size = len(data)
    if size <= MAX_FRAME:
        return [(header(FINAL | opcode, size), 0), (data, credit)]
    chunks: list[Chunk] = []
    for start in range(0, size, FRAGMENT):
        part = data[start : start + FRAGMENT]
        final = FINAL if start + FRAGMENT >= size else 0
        chunks.append((header(final | (CONTINUATION if start else opcode), len(part)), 0))
        chunks.append((part, credit if final else 0))
    return chunks


class ClientFrameSplitter:
    """Splits a client's bytes into frames: `(True, payload)` for a plain text frame, `(False, frame)` for any other.

    Only whole frames come out, so that the library never gets a part of one. From the first frame that breaks the
    protocol or is over `max_size`, all bytes come out unchanged: the library knows how to answer them.
    """

    __slots__ = ("_is_broken", "_max_size", "_needed", "_tail", "_unmask")

    def __init__(self, unmask: Callable[[bytes | memoryview, bytes], bytes], max_size: int) -> None:
        self._unmask = unmask
        self._max_size = max_size
        self._tail = bytearray()
        self._needed = 0  # size that `_tail` must reach before it can hold a whole frame
        self._is_broken = False

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame."""
        return len(self._tail)

    def feed(self, data: bytes | memoryview) -> list[tuple[bool, bytes]]:
        """Return the frames that `data` completes. Keeps none of `data` itself: the caller may use its buffer again."""
        if self._tail:
            self._tail += data
            if len(self._tail) < self._needed:
                return []
            # Large frames end here: each is copied once more, by the unmasking, and not for each cut.
            data, self._tail = memoryview(self._tail), bytearray()
        frames: list[tuple[bool, bytes]] = []
        position, end = 0, len(data)
        while position < end:
            start, stop = self._bounds(data, position, end)
            if stop > end:
                self._tail += data[position:]
                self._needed = stop - position
                break
            if data[position] == _PLAIN and not self._is_broken:
                frames.append((True, self._unmask(data[start:stop], bytes(data[start - 4 : start]))))
            else:
                frames.append((False, bytes(data[position:stop])))
            position = stop
        return frames

    def _bounds(self, data: bytes | memoryview, position: int, end: int) -> tuple[int, int]:
        """Return where the payload starts and ends; an end behind `end` tells how many bytes are needed first."""
        if self._is_broken:
            return position, end
        if end - position < 2:
            return position, position + 2
        size = data[position + 1] & ~MASKED
        start = position + 6
        if size > 125:
            width = 2 if size == 126 else 8
            start += width
            if end < start - 4:
                return position, start - 4
            size = int.from_bytes(data[position + 2 : position + 2 + width], "big")
        if size > self._max_size or not data[position + 1] & MASKED or data[position] & RESERVED:
            self._is_broken = True
            return position, end
        return start, start + size


def without_newlines(message: bytes) -> bytes:
    """Return a JSON message as one line for a pipe: a raw newline in JSON can only be whitespace."""
    return message.replace(b"\n", b" ") if b"\n" in message else message
