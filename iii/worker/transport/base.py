"""What a worker needs of the connection that carries its bytes, and a connection in memory for tests.

A transport reads and writes raw bytes, blocking; it knows nothing of messages. `stdio.py` and `websocket.py` hold the
transports of real workers.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from threading import Event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Transport(Protocol):
        """A connection to the engine. One thread reads at a time, one writes at a time."""

        # Whether the process ends when the engine closes the connection.
        owns_process: bool
        # The descriptor that an event loop can watch for bytes to read, None where only threads can read.
        input_fd: int | None

        def read(self, timeout: float | None) -> bytes | None:
            """Return some bytes, `b""` at the end, None after `timeout` seconds without any."""

        def write(self, data: bytes) -> None:
            """Write all of `data`. OSError when the engine is gone."""

        def reconnect(self) -> bool:
            """Give the present connection up for another one; False when there is only this one."""

        def abandon(self) -> None:
            """Forget the connection without a word to the engine: it is the process's that this one was forked from."""

        def close(self) -> None:
            """Stop reading and writing; a blocked `read` returns `b""`."""


class PairTransport:
    """One end of an in-memory connection; `PairTransport.pair()` makes both."""

    owns_process = False
    input_fd: int | None = None

    def __init__(self, incoming: SimpleQueue[bytes], outgoing: SimpleQueue[bytes], closed: Event) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = closed

    @classmethod
    def pair(cls) -> tuple[PairTransport, PairTransport]:
        """Return two ends; each reads what the other writes."""
        first: SimpleQueue[bytes] = SimpleQueue()
        second: SimpleQueue[bytes] = SimpleQueue()
        closed = Event()
        return cls(first, second, closed), cls(second, first, closed)

    def read(self, timeout: float | None) -> bytes | None:
        """Return what one `write` has sent, `b""` at the end, None after `timeout` seconds."""
        try:
            data = self._incoming.get(timeout=timeout)
        except Empty:
            return None
        if not data:
            self._incoming.put(b"")  # the next read shall find the end too
        return data

    def write(self, data: bytes) -> None:
        if self._closed.is_set():
            raise BrokenPipeError("the other end is closed")
        if data:
            self._outgoing.put(data)

    def reconnect(self) -> bool:
        return False

    def abandon(self) -> None:
        self._closed = Event()
        self._closed.set()

    def close(self) -> None:
        self._closed.set()
        self._incoming.put(b"")
        self._outgoing.put(b"")


class NoTransport:
    """The transport of a worker in a process that has no connection: nothing to read, and no place to write."""

    owns_process = False
    input_fd: int | None = None

    def read(self, _timeout: float | None) -> bytes | None:
        return b""

    def write(self, _data: bytes) -> None:
        raise BrokenPipeError("this process has no connection")

    def reconnect(self) -> bool:
        return False

    def abandon(self) -> None:
        return

    def close(self) -> None:
        return
