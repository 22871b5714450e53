"""One peer over file descriptors: a child's pipes, or a unix socket (the same descriptor twice).

Reads what is there, cuts it into lines and hands them over in one batch; writes the peer's outbox, as much as the
kernel takes, and waits for room for the rest. It never stops reading, whatever the other side does: a blocked
writer cannot read, and two of them would wait for each other for ever. Knows no messages and no routes.

MERGED: What the C library does with memory that is freed. Nothing where it is not glibc.

By itself it gives freed memory back so eagerly that every line of a mebibyte is put into fresh pages, which the kernel
clears one by one: half of what passing such a line on costs.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sys
import termios
from collections.abc import Callable

from iii.engine.routing.peer import Peer
from iii.engine.transport.poller import Poller
from iii.protocol.codec import invocation_id_in
from iii.protocol.lines import LineSplitter, Oversized

Lines = list[bytes | Oversized]

# 64 KiB: a larger buffer crosses malloc's mmap threshold and costs ten times as much per read.
READ_SIZE = 64 * 1024
# While one large line comes in, fewer and larger reads are cheaper.
LARGE_READ_SIZE = 1024 * 1024
# Lines larger than this are written from where they lie instead of being joined.
JOIN_LIMIT = 64 * 1024
# Pieces that one system call takes; every system takes sixteen.
_VECTORS = 16


class Connection:
    """The transport of one peer on file descriptors. Owns and closes them.

    `on_lines(connection, lines)` gets every batch, `on_closed(connection)` is called when the other side has closed
    an end of its own or a descriptor fails: once for a socket, for pipes once each. Closing by `close()` calls nobody.
    """

    def __init__(
        self,
        peer: Peer,
        read_fd: int,
        write_fd: int,
        *,
        poller: Poller,
        on_lines: Callable[[Connection, Lines], None],
        on_closed: Callable[[Connection], None],
    ) -> None:
        self.peer = peer
        self._read_fd = read_fd
        self._write_fd = write_fd
        self.on_lines = on_lines
        self._on_closed = on_closed
        self._splitter = LineSplitter()
        self._pending: list[memoryview] = []  # taken from the outbox, not yet by the kernel
        self._poller = poller
        self._is_waiting_for_room = False
        peer.connect(self.flush)
        for fd in {read_fd, write_fd}:
            os.set_blocking(fd, False)
        self._poller.add_reader(read_fd, self._on_readable)

    def __repr__(self) -> str:
        return f"<Connection {self.peer!r}>"

    @property
    def truncated(self) -> int:
        """Bytes of an unfinished last line."""
        return self._splitter.pending

    # Reading

    def _on_readable(self) -> None:
        try:
            lines = self._read()
            if lines is not None:
                self._take(lines)
                return
        except MemoryError:
            self._forget_line()
            return
        self._stop_reading()
        self._on_closed(self)

    def _read(self) -> Lines | None:
        """Return the lines that one read completes, None at the end."""
        splitter = self._splitter
        try:
            if splitter.pending < READ_SIZE:
                data = os.read(self._read_fd, READ_SIZE)
                return splitter.feed(data) if data else None
            buffer = _large_buffer()
            size = os.readv(self._read_fd, [buffer])
            return splitter.feed_from(buffer, size) if size else None
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            return None

    def _take(self, lines: Lines) -> None:
        if lines:
            self.on_lines(self, lines)
        if self._splitter.is_over:
            self._judge_endless()

    def _forget_line(self) -> None:
        """There was no memory for what came in: let go of it, and of the peer, which has lost its place."""
        self._splitter = LineSplitter()
        self._stop_reading()
        self._on_closed(self)

    def _judge_endless(self) -> None:
        """A line is over the limit and has no end yet: nothing can be saved of one that shows no id."""
        head = self._splitter.partial
        if invocation_id_in(head) is None:
            self._stop_reading()
            self.on_lines(self, [Oversized(head, self._splitter.pending)])

    def drain(self) -> None:
        """Read what is left in the pipe of a process that is gone, so that its last results count."""
        while self._read_fd >= 0:
            try:
                data = os.read(self._read_fd, LARGE_READ_SIZE)
            except OSError:
                return
            if not data:
                return
            lines = self._splitter.feed(data)
            if lines:
                self.on_lines(self, lines)

    # Writing

    def flush(self) -> None:
        """Write the outbox as far as the kernel takes it; the rest follows when there is room."""
        if self._is_waiting_for_room:
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
                count = os.writev(self._write_fd, pending[:_VECTORS])
            except (BlockingIOError, InterruptedError):
                self._wait_for_room()
                return
            except OSError:
                # The other side is gone, or has closed this end alone; what was not written counts as never started.
                self.take_back_unread()
                self._stop_writing()
                if self._read_fd >= 0:
                    self._on_closed(self)
                return
            self.peer.written += count
            _advance(pending, count)

    def _wait_for_room(self) -> None:
        if not self._is_waiting_for_room:
            self._is_waiting_for_room = True
            self._poller.add_writer(self._write_fd, self._on_writable)

    def _on_writable(self) -> None:
        self._poller.remove_writer(self._write_fd)
        self._is_waiting_for_room = False
        self._write_pending()
        if not self._is_waiting_for_room and self.peer.outbox:
            self.flush()

    # Closing

    def close_input(self) -> None:
        """Close the writing end: the other side reads end of file once it has read what was written."""
        self.flush()
        self._stop_writing()

    def take_back_unread(self) -> None:
        """Count what lies unread in the pipe of a process that is gone as not written: it never got it."""
        if self._write_fd < 0 or self._write_fd == self._read_fd:
            return
        with contextlib.suppress(OSError):  # a platform that cannot tell: written counts as read there
            unread = fcntl.ioctl(self._write_fd, termios.FIONREAD, b"\0\0\0\0")
            self.peer.written -= int.from_bytes(unread, sys.byteorder)

    def release(self) -> int:
        """Give a socket's descriptor away, open: it carries something else from now on."""
        fd = self._read_fd
        self._poller.remove_reader(fd)
        if self._is_waiting_for_room:
            self._poller.remove_writer(fd)
            self._is_waiting_for_room = False
        self._read_fd = self._write_fd = -1
        return fd

    def close(self) -> None:
        """Close both ends."""
        self._stop_writing()
        self._stop_reading()
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
def _large_buffer() -> bytearray:
    """What long lines are read into, one for all: fresh memory for each read costs more than the read."""
    keep_freed_memory()
    return bytearray(LARGE_READ_SIZE)


def _advance(pending: list[memoryview], count: int) -> None:
    """Take off what was written."""
    done = 0
    while done < len(pending) and count >= len(pending[done]):
        count -= len(pending[done])
        done += 1
    del pending[:done]
    if count:
        pending[0] = pending[0][count:]


def _chunks(outbox: list[bytes]) -> list[memoryview]:
    """Cut the lines into writes: small ones joined, large ones as they are."""
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


# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Bytes that stay at hand, and the size from which a block is given back as soon as it is freed.
KEPT = 8 * 1024 * 1024
SEPARATE = 4 * 1024 * 1024


def keep_freed_memory() -> None:
    """Keep some of what is freed for the next large line."""
    import ctypes  # only an engine that sees large lines needs it

    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, SEPARATE)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT)
