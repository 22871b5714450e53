"""What a worker needs of the connection that carries its bytes, and a connection in memory for tests.

A transport reads and writes raw bytes, blocking; it knows nothing of messages. `stdio.py` and `websocket.py` hold the
transports of real workers.
"""

from __future__ import annotations

from threading import Condition

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

        def close(self) -> None:
            """Stop reading and writing; a blocked `read` returns `b""`."""


class _Stream:
    """Bytes in one direction."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._closed = False
        self._changed = Condition()

    def put(self, data: bytes) -> None:
        with self._changed:
            if self._closed:
                raise BrokenPipeError("the other end is closed")
            self._bytes += data
            self._changed.notify_all()

    def take(self, timeout: float | None) -> bytes | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._bytes or self._closed, timeout):
                return None
            data = bytes(self._bytes)
            self._bytes.clear()
            return data

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class PairTransport:
    """One end of an in-memory connection; `PairTransport.pair()` makes both."""

    owns_process = False
    input_fd: int | None = None

    def __init__(self, incoming: _Stream, outgoing: _Stream) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    @classmethod
    def pair(cls) -> tuple[PairTransport, PairTransport]:
        """Return two ends; each reads what the other writes."""
        first_to_second, second_to_first = _Stream(), _Stream()
        return cls(second_to_first, first_to_second), cls(first_to_second, second_to_first)

    def read(self, timeout: float | None) -> bytes | None:
        """Return what has arrived, `b""` at the end, None after `timeout` seconds."""
        return self._incoming.take(timeout)

    def write(self, data: bytes) -> None:
        """Hand `data` to the other end."""
        self._outgoing.put(data)

    def close(self) -> None:
        """Close both directions."""
        self._incoming.close()
        self._outgoing.close()
