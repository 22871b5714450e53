"""The transport of a supervised worker: the pipes that were its stdin and stdout.

`claim_wire` of `launcher.py` has moved them to private descriptors, which no other code of the process can reach.
"""

from __future__ import annotations

import os
import select

# A read of this size stays below malloc's mmap threshold: 2 us, against 20 us for 256 KiB.
READ_SIZE = 64 * 1024
# While a large line is coming in, fewer and larger reads are cheaper.
LARGE_READ_SIZE = 1024 * 1024


class StdioTransport:
    """Reads and writes the two private descriptors."""

    owns_process = True

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.input_fd: int | None = read_fd
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._size = READ_SIZE
        self._poll = select.poll()
        self._poll.register(read_fd, select.POLLIN)

    def read(self, timeout: float | None) -> bytes | None:
        data = None
        while data is None:
            if timeout is not None and not self._poll.poll(timeout * 1000):
                return None
            try:
                data = os.read(self._read_fd, self._size)
            except BlockingIOError:
                # An event loop has read here before, and some loops leave the descriptor non-blocking. Another reader
                # may have taken the bytes that `poll` reported: this is not the end of the wire.
                if timeout is None:
                    self._poll.poll()
        self._size = LARGE_READ_SIZE if len(data) == self._size else READ_SIZE
        return data

    def write(self, data: bytes) -> None:
        written = os.write(self._write_fd, data)
        while written < len(data):
            data = data[written:]
            written = os.write(self._write_fd, data)

    def reconnect(self) -> bool:
        return False

    def abandon(self) -> None:
        # `claim_wire` has closed the descriptors of the forked child; their numbers may mean other files soon.
        self._read_fd = self._write_fd = -1
        self.input_fd = None

    def close(self) -> None:
        """Close the write side: the engine reads the end. The read side stays open: a thread may block in it."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1
