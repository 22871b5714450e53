"""Lines on their way out, combined into one write by whichever thread finds the writer idle.

Any thread adds; `flush` writes unless another thread is writing, which then takes the new lines along. Order of
adding is order on the wire.
"""

from __future__ import annotations

from threading import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable


class Outbox:
    """`add` a line without its newline, then `flush`."""

    __slots__ = ("_due_on", "_lines", "_write", "_writing", "add", "is_broken")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._lines: list[bytes] = []
        self._writing = Lock()
        self._due_on: AbstractEventLoop | None = None
        self.add = self._lines.append
        self.is_broken = False

    def flush(self) -> None:
        """Write all lines. When another thread is writing, it does."""
        # Looked at again after each release: a line added while the lock was held must not stay behind.
        while self._lines and self._writing.acquire(False):
            try:
                self._write_lines()
            finally:
                self._writing.release()

    def flush_soon(self, loop: AbstractEventLoop) -> None:
        """Flush behind what `loop` is about to run, once for all of it. Call it on that loop."""
        # Kept by loop: one that has stopped for good must not swallow the flush of another.
        if self._due_on is not loop:
            self._due_on = loop
            loop.call_soon(self._flush_due)

    def _flush_due(self) -> None:
        self._due_on = None
        self.flush()

    def _write_lines(self) -> None:
        # Copy, then delete as many: another thread may append in between, and must append to this same list.
        lines = self._lines[:]
        del self._lines[: len(lines)]
        lines.append(b"")
        try:
            self._write(b"\n".join(lines))
        except OSError:
            # The other end is gone; the reader learns it from the end of its stream and ends the worker.
            self.is_broken = True
