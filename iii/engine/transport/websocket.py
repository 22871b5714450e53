"""One WebSocket connection on a socket: the handshake, messages in, frames out, the close.

RFC 6455 is the `websockets` library's, in its sans-IO form: callbacks on the engine's loop, without the task, the queue
and the two wake-ups per message of its asyncio server. Plain text frames pass it by (see frames.py). Reads until told
to pause, writes as much as the kernel takes. Knows no paths, no peers and no messages of ours: the gateway decides
about the handshake and names the endpoint that gets the rest.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from iii.engine.transport.websocket_frames import (
    BINARY,
    MAX_MESSAGE,
    TEXT,
    Chunk,
    FrameSplitter,
    chunks_of,
    header,
    message,
)

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its C extension
    from websockets.utils import apply_mask

# The Python SDK cuts 64 MiB into 64 fragments; thousands of them are meant to cost us something.
MAX_FRAGMENTS = 4096
# 64 KiB: a larger buffer crosses malloc's mmap threshold and costs ten times as much per read.
READ_SIZE = 64 * 1024
LARGE_READ_SIZE = 1024 * 1024
# How long the other side may take to answer our close before the socket is simply closed.
CLOSE_TIMEOUT = 2.0

# Its log lines would tell what the engine reports itself.
_silent = logging.getLogger("iii.engine.transport.websocket")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

Received = list[tuple[int, bytes]]  # messages: opcode (TEXT or BINARY) and payload


class Endpoint(Protocol):
    """What a connection leads to. Nothing is called any more after `on_closed`."""

    def on_messages(self, messages: Received) -> None:
        """A batch of messages came in."""

    def on_written(self, credit: int) -> None:
        """The kernel took lines of this many bytes."""

    def on_closed(self) -> None:
        """The other side closed, or is gone."""


class Doorman(Protocol):
    """Decides about handshakes."""

    def on_request(self, connection: WebSocket, request: Request) -> None:
        """A handshake is complete: call `accept` or `refuse`."""

    def on_end(self, connection: WebSocket) -> None:
        """The socket is closed."""


class WebSocket:
    """A connection from its first byte on. Owns and closes the socket."""

    def __init__(self, connected: socket.socket, doorman: Doorman) -> None:
        self.endpoint: Endpoint | None = None
        self.client: tuple[str, int] = connected.getpeername()[:2]
        self.server: tuple[str, int] = connected.getsockname()[:2]
        self._socket = connected
        self._fd = connected.fileno()
        self._doorman = doorman
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE, logger=_silent)
        self._splitter = FrameSplitter(apply_mask, MAX_MESSAGE)
        self._fragments: list[bytes] = []
        self._opcode = TEXT
        self._pending: deque[tuple[memoryview, int]] = deque()
        self._is_waiting_for_room = False
        self.is_reading = True
        self._ends_after_write = False
        self._timer: asyncio.TimerHandle | None = None
        self.is_patient = False  # silence says nothing about it
        self.backlog = 0  # bytes that the kernel has not taken
        self.heard_at = self.moved_at = self.opened_at = self._loop.time()
        self._loop.add_reader(self._fd, self._on_readable)

    def __repr__(self) -> str:
        return f"<WebSocket {self.client[0]}:{self.client[1]} {self._protocol.state.name.lower()}>"

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._fd >= 0 and self._protocol.state is State.OPEN

    @property
    def is_handshaking(self) -> bool:
        return self._protocol.state is State.CONNECTING

    # The handshake

    def accept(self, request: Request, endpoint: Endpoint, subprotocol: str | None = None) -> bool:
        """Upgrade; return False where the request is none for a WebSocket (it has been answered then)."""
        response = self._protocol.accept(request)
        if subprotocol is not None and response.status_code == 101:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._protocol.send_response(response)
        if response.status_code == 101:
            self.endpoint = endpoint
        self._write_protocol()
        return self.endpoint is endpoint

    def refuse(self, status: int, text: str) -> None:
        """Answer the request with an HTTP status and one line of text, and close."""
        self._protocol.send_response(self._protocol.reject(status, text + "\n"))
        self._write_protocol()

    # Reading

    def pause(self) -> None:
        """Stop reading: the other side's writes will block."""
        if self.is_reading and self._fd >= 0:
            self.is_reading = False
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read again."""
        if not self.is_reading and self._fd >= 0:
            self.is_reading = True
            self._loop.add_reader(self._fd, self._on_readable)

    def drain(self) -> None:
        """Read what is left in the socket of a process that is gone, so that its last results count."""
        while self._fd >= 0 and self._read():
            pass

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        size = LARGE_READ_SIZE if self._splitter.pending > READ_SIZE else READ_SIZE
        try:
            data = self._socket.recv(size)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self.abort()
            return False
        self.heard_at = self._loop.time()
        if self._protocol.state is State.CONNECTING:
            self._take_handshake(data)
        else:
            self._take_frames(data)
        return True

    def _take_handshake(self, data: bytes) -> None:
        if self._ends_after_write:
            return
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        if len(events) > 1:
            self.abort()  # frames before our answer: no client does that
        elif events and isinstance(events[0], Request):
            self._doorman.on_request(self, events[0])
        else:
            self._write_protocol()

    def _take_frames(self, data: bytes) -> None:
        received: Received = []
        for is_plain, frame in self._splitter.feed(data):
            if not is_plain:
                self._protocol.receive_data(frame)
                self._assemble(received)
            elif self._protocol.state is not State.OPEN:
                break  # what follows a close says nothing
            elif self._protocol.current_size is None:
                received.append((TEXT, frame))
            else:
                self._protocol.fail(1002, "expected a continuation frame")
        self._write_protocol()
        if received and self.endpoint is not None and _is_utf8(received):
            self.endpoint.on_messages(received)
        elif received:
            self.close(1007)
        if self._protocol.state is not State.OPEN:
            self._detach()

    def _assemble(self, received: Received) -> None:
        """Take what the library read: fragments become messages, control frames it has answered itself."""
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._opcode = int(frame.opcode)
                self._fragments = [bytes(frame.data)]
            elif frame.opcode is Opcode.CONT:
                self._fragments.append(bytes(frame.data))
            else:
                continue
            if frame.fin:
                received.append((self._opcode, b"".join(self._fragments)))
                self._fragments = []
            elif len(self._fragments) > MAX_FRAGMENTS:
                self._protocol.fail(1009, "too many fragments")

    # Writing

    def send_lines(self, lines: Iterable[bytes]) -> None:
        """Send one text message a line; what the kernel does not take follows when there is room."""
        if self.is_open:
            self._write(chunks_of(lines))

    def send(self, opcode: int, data: bytes) -> None:
        """Send one message; its endpoint hears when it is written."""
        if self.is_open:
            self._write(message(opcode, data, len(data) + 1))

    def ping(self) -> None:
        """Ask for a sign of life; `heard_at` tells whether one came."""
        if self.is_open:
            self._write([(header(0x9, 0), 0)])

    def _write_protocol(self) -> None:
        """Write what the library has to say. Its empty write says that nothing follows."""
        for data in self._protocol.data_to_send():
            if data:
                self._write([(data, 0)])
            else:
                self._ends_after_write = True
        if self._ends_after_write and not self._pending:
            self._shut_down()

    def _write(self, chunks: list[Chunk]) -> None:
        if self._fd < 0:
            return
        for data, credit in chunks:
            self._pending.append((memoryview(data), credit))
            self.backlog += len(data)
        if not self._is_waiting_for_room:
            self.moved_at = self._loop.time()
            self._write_pending()

    def _write_pending(self) -> None:
        pending = self._pending
        credits = 0
        try:
            while pending:
                data, credit = pending[0]
                count = self._socket.send(data)
                self.backlog -= count
                if count == len(data):
                    pending.popleft()
                    credits += credit
                else:
                    # A part of the credit at once: a line that may have arrived whole must count as started.
                    credits += min(count, credit)
                    pending[0] = (data[count:], max(credit - count, 0))
        except (BlockingIOError, InterruptedError):
            self._wait_for_room()
        except OSError:
            self._loop.call_soon(self.abort)
            pending.clear()
        if credits:
            self.moved_at = self._loop.time()
            if self.endpoint is not None:
                self.endpoint.on_written(credits)

    def _wait_for_room(self) -> None:
        if not self._is_waiting_for_room:
            self._is_waiting_for_room = True
            self._loop.add_writer(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._fd)
        self._is_waiting_for_room = False
        self.moved_at = self._loop.time()
        self._write_pending()
        if self._ends_after_write and not self._pending:
            self._shut_down()
        elif self.is_closing:
            self._await_end()

    # Closing

    def close(self, code: int | None = None, reason: str = "") -> None:
        """Say goodbye; the endpoint hears nothing more."""
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._write_protocol()
        self._detach()
        self.resume()
        self._await_end()

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is sent, though what was may still be on its way."""
        return self._protocol.state is State.CLOSING

    def _await_end(self) -> None:
        """Everything is written: give the other side a moment to answer."""
        if self._timer is None and self._fd >= 0 and not self._pending:
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Close the socket now."""
        if self._fd < 0:
            return
        self.pause()
        if self._is_waiting_for_room:
            self._loop.remove_writer(self._fd)
        if self._timer is not None:
            self._timer.cancel()
        self._fd = -1
        self._pending.clear()
        self._socket.close()
        self._detach()
        self._doorman.on_end(self)

    def _detach(self) -> None:
        endpoint, self.endpoint = self.endpoint, None
        if endpoint is not None:
            endpoint.on_closed()

    def _shut_down(self) -> None:
        """Everything is said: end our direction, and wait until the other side has read it."""
        if self._fd < 0:
            return
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._loop.call_soon(self.abort)
            return
        self._await_end()


def _is_utf8(received: Received) -> bool:
    try:
        for opcode, data in received:
            if opcode == TEXT and not data.isascii():
                data.decode()
    except UnicodeDecodeError:
        return False
    return True


__all__ = ["BINARY", "TEXT", "Doorman", "Endpoint", "Received", "WebSocket"]
