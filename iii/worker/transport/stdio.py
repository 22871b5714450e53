"""The transport of a supervised worker: its own stdin and stdout, which no other code of the process can reach.

`claim` moves descriptors 0 and 1 to private ones that children do not inherit, and points fd 1 at stderr and fd 0 at
/dev/null, so that `print`, C code and child processes cannot break the protocol. The launcher claims them before user
code runs; in a script started by hand, `register_worker` does.
"""

from __future__ import annotations

import os
import select
import sys

# A read of this size stays below malloc's mmap threshold: 2 us, against 20 us for 256 KiB.
READ_SIZE = 64 * 1024
# While a large line is coming in, fewer and larger reads are cheaper.
LARGE_READ_SIZE = 1024 * 1024
# Under this name the launcher is found in `sys.modules` by the SDK it started.
LAUNCHER = "iii_launcher"


def claim() -> tuple[int, int]:
    """Return private descriptors (read, write) of the wire; 0 and 1 become ordinary ones that any code may use."""
    import fcntl  # not under the launcher, which has claimed already

    read = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    write = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return read, write


def claimed_descriptors() -> tuple[int, int]:
    """Return the descriptors the launcher has claimed, or claim them now."""
    launcher = sys.modules.get(LAUNCHER)
    wire: tuple[int, int] | None = getattr(launcher, "wire", None)
    if wire is None:
        sys.stdout.flush()
        return claim()
    return wire


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
        """Return some bytes, `b""` at the end, None after `timeout` seconds."""
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
        """Write all of `data`."""
        written = os.write(self._write_fd, data)
        while written < len(data):
            data = data[written:]
            written = os.write(self._write_fd, data)

    def close(self) -> None:
        """Close the write side: the engine reads the end. The read side stays open: a thread may block in it."""
        if self._write_fd >= 0:
            os.close(self._write_fd)
            self._write_fd = -1


def has_input(fd: int | None, *, wait: bool) -> bool:
    """Tell whether a descriptor has bytes or its end, without reading it; with `wait`, block until it has."""
    input_poll = select.poll()
    if fd is not None:
        input_poll.register(fd, select.POLLIN)
    return bool(input_poll.poll(None if wait else 0))
