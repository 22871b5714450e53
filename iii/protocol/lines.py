"""Cut a byte stream into lines.

Splits on `b"\\n"` only: U+2028, `\\r`, `\\f` are data (`str.splitlines` and `readline` would cut at some of them, or
give up at 64 KiB). Empty lines are left out. A line over the limit costs that line, not the stream: its head is
returned as `Oversized`, so that the call whose id it shows can be answered.
"""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of a line on pipes and the unix socket: larger data belongs in a channel.
MAX_LINE = 16 * 1024 * 1024
# Bytes of an over-long line that are kept: its invocation id is looked for in them.
HEAD = 4096


@dataclass(frozen=True, slots=True)
class Oversized:
    """A line longer than the limit. `head` holds its first 4 KiB, `size` all its bytes without the newline."""

    head: bytes
    size: int


class LineSplitter:
    """Takes bytes and returns complete lines, in order, without their newline."""

    __slots__ = ("_head", "_limit", "_parts", "is_over", "pending")

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._parts: list[bytes | memoryview] = []
        self._head = b""
        self.pending = 0  # bytes of the unfinished last line
        self.is_over = False  # that line is over the limit already, and only its head is kept

    @property
    def partial(self) -> bytes:
        """The unfinished last line (only its head once it is over the limit)."""
        return self._head if self.is_over else b"".join(self._parts)

    @property
    def kept(self) -> int:
        """Bytes of the unfinished last line that are kept."""
        return len(self._head) if self.is_over else self.pending

    def feed(self, data: bytes) -> list[bytes | Oversized]:
        """Return the lines completed by `data`, empty ones left out."""
        lines: list[bytes | Oversized] = data.split(b"\n")  # type: ignore[assignment]
        partial: bytes = lines.pop()  # type: ignore[assignment]
        if self.pending:
            if not lines:
                self._keep(partial)
                return []
            lines[0] = self._finish(lines[0])  # type: ignore[arg-type]
        if partial:
            self._keep(partial)
        if len(data) > self._limit:
            lines = [
                Oversized(line[:HEAD], len(line)) if type(line) is bytes and len(line) > self._limit else line
                for line in lines
            ]
        return [line for line in lines if line] if b"" in lines else lines

    def feed_from(self, buffer: bytearray, size: int) -> list[bytes | Oversized]:
        """As `feed`, of the first `size` bytes of a buffer that the caller uses again.

        A piece of a long line is copied once here, and once more when the line is joined, but never split.
        """
        view = memoryview(buffer)[:size]
        end = buffer.find(b"\n", 0, size)
        if end < 0 or not self.pending:
            return self.feed(bytes(view))
        return [self._finish(view[:end]), *self.feed(bytes(view[end + 1 :]))]

    def _keep(self, data: bytes | memoryview) -> None:
        self.pending += len(data)
        if self.is_over:
            return
        self._parts.append(data)
        if self.pending > self._limit:
            self._head = b"".join(self._parts)[:HEAD]
            self._parts.clear()
            self.is_over = True

    def _finish(self, tail: bytes | memoryview) -> bytes | Oversized:
        self._keep(tail)
        size, self.pending = self.pending, 0
        if self.is_over:
            self.is_over = False
            head, self._head = self._head, b""
            return Oversized(head, size)
        line = b"".join(self._parts)
        self._parts.clear()
        return line
