"""Lines on their way out, combined into one write by the thread that finds no other thread writing.

Any thread adds; `flush` writes, unless another thread is writing, which then writes the new lines too. The order of
adding is the order on the wire.
"""

from __future__ import annotations

from threading import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable


class LineWriter:
    """`add` a line without its newline, then `flush`."""

    __slots__ = ("_lines", "_scheduled_on", "_write", "_writing", "add")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._lines: list[bytes] = []
        self._writing = Lock()
        self._scheduled_on: AbstractEventLoop | None = None
        self.add = self._lines.append

    def flush(self) -> None:
        """Write all lines, or leave them to the thread that is writing."""
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

    def flush_soon(self, loop: AbstractEventLoop) -> None:
        """Flush once, after the callbacks that `loop` has ready. Call it on that loop."""
        # Kept by loop: a loop that has stopped for good must not swallow the flush of another.
        if self._scheduled_on is not loop:
            self._scheduled_on = loop
            loop.call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._scheduled_on = None
        self.flush()
