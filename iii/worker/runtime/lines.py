"""The lines of the wire: bytes into messages, a block of complete lines at a time, and lines out in combined writes."""

from __future__ import annotations

from threading import Lock

from iii.worker.codec.codec import oversized
from iii.worker.codec.limits import HEAD, MAX_LINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from typing import Any

    from iii.errors import RemoteProtocolError
    from iii.worker.codec.codec import Codec, Message

# Lines that wait behind a write which does not end: more, and what can be left out is.
_MAX_BEHIND = 256
# Every reference to a channel holds this key.
_CHANNEL_KEY = b'"access_key"'


class LineReader:
    """`feed` bytes, get messages; a refused line gives its error in the message's place.

    Splits on `b"\\n"` only. A line over the limit costs that line: its first bytes are kept for the invocation id.
    `revive` puts live ends in the place of a payload's channel references; one search of the block's bytes finds them.
    """

    def __init__(self, codec: Codec, limit: int = MAX_LINE, revive: Callable[[Any], Any] = lambda data: data) -> None:
        self._codec = codec
        self._limit = limit
        self._revive = revive
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""

    def feed(self, data: bytes) -> list[Message | RemoteProtocolError]:
        cut = data.rfind(b"\n")
        if cut == len(data) - 1 and not self._size:
            return self._decode(data)
        if cut < 0:
            self._keep(data)
            return []
        first = data.find(b"\n")
        self._keep(data[:first])  # now the kept parts are one line
        head, line, size = self._head, b"".join(self._parts), self._size
        self._head, self._size = b"", 0
        self._parts.clear()
        messages = [oversized(head, size)] if size > self._limit else self._decode(line)
        messages += self._decode(data[first + 1 : cut])
        self._keep(data[cut + 1 :])
        return messages

    def _decode(self, block: bytes) -> list[Message | RemoteProtocolError]:
        messages = self._codec.decode_block(block)
        if block.find(_CHANNEL_KEY) >= 0:  # `in` takes twice its time
            for message in messages:
                if isinstance(message, dict) and message.get("type") == "invokefunction":
                    message["data"] = self._revive(message.get("data"))
        return messages

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._parts.append(data)
        elif not self._head:
            self._head = (b"".join(self._parts) + data)[:HEAD]
            self._parts.clear()


class LineWriter:
    """Any thread may `add` a line without its newline, then `flush`. The order of adding is the order on the wire."""

    __slots__ = ("_lines", "_scheduled_on", "_write", "_writing", "add")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._lines: list[bytes] = []
        self._writing = Lock()
        self._scheduled_on: AbstractEventLoop | None = None
        self.add = self._lines.append

    def flush(self) -> None:
        """Write all lines at once, or leave them to the thread that is writing."""
        # Checked again after each release: a line added while the lock was held must not stay behind.
        while self._lines and self._writing.acquire(False):
            try:
                # Copy, then delete as many: another thread may append in between, and must append to this same list.
                lines = self._lines[:]
                del self._lines[: len(lines)]
                lines.append(b"")
                self._write(b"\n".join(lines))
            except OSError:
                pass  # the engine is gone: the thread that reads finds the end of the stream, and ends the worker
            finally:
                self._writing.release()

    @property
    def is_behind(self) -> bool:
        """Whether much waits for a thread that cannot write: the engine does not read."""
        return len(self._lines) > _MAX_BEHIND and self._writing.locked()

    def flush_soon(self, loop: AbstractEventLoop) -> None:
        """Flush once, after the callbacks that `loop` has ready. Call it on that loop."""
        # Kept by loop: a loop that has stopped for good must not swallow the flush of another.
        if self._scheduled_on is not loop:
            self._scheduled_on = loop
            loop.call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._scheduled_on = None
        self.flush()
