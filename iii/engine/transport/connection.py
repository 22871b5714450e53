"""One peer over file descriptors: a child's pipes, or a unix socket (the same descriptor twice).

A connection reads what is there, cuts it into lines and hands them over in one batch. It writes as much of the peer's
outbox as the kernel takes, and the rest when there is room. It never stops reading: a blocked writer cannot read, and
two of them would wait for each other for ever. It knows no messages and no routes.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sys
import termios
from collections.abc import Callable

from iii.engine.routing.budget import Budget
from iii.engine.routing.peer import Peer
from iii.engine.transport.poller import Poller
from iii.protocol.codec import invocation_id_in
from iii.protocol.lines import LineSplitter, Oversized

Lines = list[bytes | Oversized]

# 64 KiB: a larger buffer crosses malloc's mmap threshold and costs ten times as much per read.
READ_SIZE = 64 * 1024
# While one large line comes in, fewer and larger reads are cheaper.
LARGE_READ_SIZE = 1024 * 1024
# Lines larger than this are written as they are instead of being copied into a joined buffer.
JOIN_LIMIT = 64 * 1024
# Buffers that one `writev` takes; every system takes sixteen.
_MAX_BUFFERS = 16
# Parameters of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Bytes of free memory that glibc keeps, and the size from which it returns a freed block at once.
_KEPT_BYTES = 8 * 1024 * 1024
_MMAP_BYTES = 4 * 1024 * 1024


class Connection:
    """The transport of one peer on file descriptors. Owns and closes them.

    `on_lines(peer, lines)` gets every batch. `on_closed(connection)` is called when the other side has closed
    an end or a descriptor fails: once for a socket, once for each of two pipes. `close()` does not call it. A `Holder`
    of the budget: of a long unfinished line, and of what the peer has not read.
    """

    def __init__(
        self,
        peer: Peer,
        read_fd: int,
        write_fd: int,
        *,
        poller: Poller,
        on_lines: Callable[[Peer, Lines], None],
        on_closed: Callable[[Connection], None],
        budget: Budget | None = None,
    ) -> None:
        self.peer = peer
        self.held = 0
        self._budget = budget or Budget()
        self._read_fd = read_fd
        self._write_fd = write_fd
        self.on_lines = on_lines
        self._on_closed = on_closed
        self._splitter = LineSplitter()
        self._pending: list[memoryview] = []  # taken from the outbox, not yet by the kernel
        self._poller = poller
        self._is_waiting_for_room = False
        peer.flush = self.flush
        for fd in {read_fd, write_fd}:
            os.set_blocking(fd, False)
        self._poller.add_reader(read_fd, self._on_readable)

    @property
    def truncated(self) -> int:
        """Bytes of an unfinished last line."""
        return self._splitter.pending

    # Reading

    def _on_readable(self) -> None:
        try:
            lines = self._read()
            if lines is not None:
                if lines:
                    self.on_lines(self.peer, lines)
                # An unfinished line over the limit that shows no invocation id: no call can be answered.
                if self._splitter.is_over and invocation_id_in(self._splitter.partial) is None:
                    self._stop_reading()
                    self.on_lines(self.peer, [Oversized(self._splitter.partial, self._splitter.pending)])
                return
        except MemoryError:
            # The peer goes with the data: where its next line begins is no longer known.
            self._splitter = LineSplitter()
        self._stop_reading()
        self._on_closed(self)

    def _read(self) -> Lines | None:
        """Return the lines that one read completes, None at the end."""
        splitter = self._splitter
        try:
            if splitter.pending < READ_SIZE:
                data = os.read(self._read_fd, READ_SIZE)
                return splitter.feed(data) if data else None
            buffer = large_buffer()
            size = os.readv(self._read_fd, [buffer])
            lines = splitter.feed_from(buffer, size) if size else None
            self._count_held()
            return lines
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None

    def _count_held(self) -> None:
        self._budget.set(self, self._splitter.kept + self.peer.unsent_bytes)

    def drain(self) -> None:
        """Read what an exited process left in its pipe, so that its last results count."""
        while self._read_fd >= 0:
            try:
                data = os.read(self._read_fd, LARGE_READ_SIZE)
            except OSError:
                return
            if not data:
                return
            if lines := self._splitter.feed(data):
                self.on_lines(self.peer, lines)

    # Writing

    def flush(self) -> None:
        """Write as much of the outbox as the kernel takes; the rest follows when there is room."""
        if self._is_waiting_for_room:
            self._count_held()
            return
        outbox = self.peer.outbox
        if self._write_fd < 0:
            outbox.clear()
            return
        self._pending = _chunks(outbox)
        outbox.clear()
        self._write_pending()

    def _write_pending(self) -> None:
        pending = self._pending
        while pending:
            try:
                count = os.writev(self._write_fd, pending[:_MAX_BUFFERS])
            except (BlockingIOError, InterruptedError):
                if not self._is_waiting_for_room:
                    self._is_waiting_for_room = True
                    self._poller.add_writer(self._write_fd, self._on_writable)
                self._count_held()
                return
            except OSError:
                # The other side has closed both ends or this one. Calls that were not written count as never started.
                self.take_back_unread()
                self._stop_writing()
                if self._read_fd >= 0:
                    self._on_closed(self)
                return
            self.peer.written += count
            done = 0
            while done < len(pending) and count >= len(pending[done]):
                count -= len(pending[done])
                done += 1
            del pending[:done]
            if count:
                pending[0] = pending[0][count:]

    def _on_writable(self) -> None:
        self._poller.remove_writer(self._write_fd)
        self._is_waiting_for_room = False
        self._write_pending()
        if not self._is_waiting_for_room and self.peer.outbox:
            self.flush()
        if self.held:
            self._count_held()

    # Closing

    def close_input(self) -> None:
        """Close the writing end: the other side reads what was written, then end of file."""
        self.flush()
        self._stop_writing()

    def take_back_unread(self) -> None:
        """Count what an exited process left unread in its pipe as not written: it never received those bytes."""
        if self._write_fd < 0 or self._write_fd == self._read_fd:
            return
        with contextlib.suppress(OSError):  # without FIONREAD, written counts as read
            unread = fcntl.ioctl(self._write_fd, termios.FIONREAD, b"\0\0\0\0")
            self.peer.written -= int.from_bytes(unread, sys.byteorder)

    def release(self) -> int:
        """Return a socket's open descriptor and forget it: the caller uses it for another protocol."""
        fd = self._read_fd
        self._poller.remove_reader(fd)
        if self._is_waiting_for_room:
            self._poller.remove_writer(fd)
            self._is_waiting_for_room = False
        self._read_fd = self._write_fd = -1
        self._budget.set(self, 0)
        return fd

    def close(self) -> None:
        self._stop_writing()
        self._stop_reading()
        self._splitter = LineSplitter()
        self._budget.set(self, 0)
        self.peer.disconnect()

    def _stop_writing(self) -> None:
        if self._write_fd < 0:
            return
        if self._is_waiting_for_room:
            self._poller.remove_writer(self._write_fd)
            self._is_waiting_for_room = False
        self._pending.clear()
        self.peer.outbox.clear()
        if self._write_fd != self._read_fd:
            os.close(self._write_fd)
        self._write_fd = -1

    def _stop_reading(self) -> None:
        if self._read_fd >= 0:
            self._poller.remove_reader(self._read_fd)
            if self._read_fd == self._write_fd:
                self._stop_writing()
            os.close(self._read_fd)
            self._read_fd = -1


@functools.cache
def large_buffer() -> bytearray:
    """Return the buffer that every long line is read into: fresh memory for each read costs more than the read."""
    import ctypes  # only an engine that sees large lines needs it

    # glibc returns freed memory so eagerly that every line of a mebibyte gets fresh pages, which the kernel clears one
    # by one: half of the cost of passing such a line on. Other C libraries are left alone.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    return bytearray(LARGE_READ_SIZE)


def _chunks(outbox: list[bytes]) -> list[memoryview]:
    """Return the buffers to write: small lines joined, large ones as they are."""
    chunks: list[memoryview] = []
    small: list[bytes] = []
    for line in outbox:
        small.append(line)
        if len(line) > JOIN_LIMIT:
            small.pop()
            if small:
                chunks.append(memoryview(b"\n".join(small) + b"\n"))
                small = []
            chunks += [memoryview(line), memoryview(b"\n")]
    if small:
        small.append(b"")
        chunks.append(memoryview(b"\n".join(small)))
    return chunks
