"""One WebSocket connection on a socket: the handshake, messages in, frames out, the close.

The `websockets` library implements RFC 6455. It is used in its sans-IO form, with callbacks on the engine's loop: its
asyncio server needs a task, a queue and two wake-ups per message. Plain text frames bypass the library (see
`websocket_frames.py`). A connection reads until it is paused and writes as much as the kernel takes. It knows no paths,
no peers and no messages of the protocol: the gateway decides about the handshake and names the session that gets the
messages.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterable

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from iii.engine.routing.budget import Budget
from iii.engine.transport.connection import READ_SIZE, large_buffer
from iii.engine.transport.poller import Poller
from iii.engine.transport.session import Received, Session
from iii.engine.transport.websocket_frames import Chunk, ClientFrameSplitter, message_chunks, text_chunks
from iii.protocol.frames import FINAL, MASKED, MAX_MESSAGE, PING, PONG, TEXT, header

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its C extension
    from websockets.utils import apply_mask

# The Python SDK cuts 64 MiB into 64 fragments; thousands of fragments are an attack on the engine's memory.
MAX_FRAGMENTS = 4096
# How long the client may take to answer the engine's close before the socket is closed without the answer.
CLOSE_TIMEOUT = 2.0

# Bytes of a handshake: a client that needs more than headers and a token for it is none.
MAX_HANDSHAKE = 64 * 1024
# Bytes that a piece of a write costs beside its data while the kernel has not taken it.
PIECE_OVERHEAD = 256
# The close code for "try again later" (IANA's registry of RFC 6455).
TRY_AGAIN_LATER = 1013
# First bytes of whole control frames that need no library, and the bytes of their header with the mask.
_PING, _PONG, _CONTROL_HEAD = FINAL | PING, FINAL | PONG, 6
_MAX_CONTROL = 125  # bytes of a control frame's payload

# The library's log lines would repeat what the engine reports itself.
_silent = logging.getLogger("iii.engine.transport.websocket")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


class WebSocketConnection:
    """A connection from its first byte on. Owns and closes the socket.

    `on_request(connection, request)` gets the complete handshake and calls `accept` or `reject`, at once or later.
    `on_closed(connection)` is called when the socket is closed. A `Holder` of the budget: of the unfinished message,
    and of what its client has not read.
    """

    def __init__(
        self,
        connected: socket.socket,
        on_request: Callable[[WebSocketConnection, Request], None],
        on_closed: Callable[[WebSocketConnection], None],
        *,
        poller: Poller,
        budget: Budget,
    ) -> None:
        self.held = 0
        self._poller = poller
        self._budget = budget
        self.session: Session | None = None
        self.client: tuple[str, int] = connected.getpeername()[:2]
        self.server: tuple[str, int] = connected.getsockname()[:2]
        self._socket = connected
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = connected.fileno()
        self._on_request = on_request
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE, logger=_silent)
        self._splitter = ClientFrameSplitter(apply_mask, MAX_MESSAGE)
        self._handshake_bytes = 0
        self._fragments: list[bytes] = []
        self._fragment_bytes = 0
        self._opcode = TEXT
        self._owed_pong: bytes | None = None  # the payload of the last ping, until it is answered
        self._is_discarding = False  # refused: what still comes in is of a message that nobody wants
        self._pending: deque[tuple[memoryview, int]] = deque()
        self._is_waiting_for_room = False
        self.is_reading = True
        self._ends_after_write = False
        self._timer: asyncio.TimerHandle | None = None
        self.may_be_silent = False  # then silence does not mean that the client is gone
        self.unsent_bytes = 0  # bytes that the kernel has not taken, with what each piece costs
        self.received_at = self.sent_at = self.opened_at = self._loop.time()
        self._poller.add_reader(self._fd, self._read)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._fd >= 0 and self._protocol.state is State.OPEN

    @property
    def is_handshaking(self) -> bool:
        """Whether the handshake is not answered yet."""
        return self._protocol.state is State.CONNECTING

    # The handshake

    def accept(self, request: Request, session: Session, subprotocol: str | None = None) -> None:
        """Answer the handshake and open the session; a request without a valid handshake gets an HTTP error."""
        response = self._protocol.accept(request)
        if subprotocol is not None and response.status_code == 101:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._protocol.send_response(response)
        # The library keeps the request as long as the connection: headers of up to MAX_HANDSHAKE bytes.
        request.headers.clear()
        if response.status_code == 101:
            self.session = session
        self._write_protocol()
        if self.session is session:
            session.open()

    def replace_session(self, session: Session) -> None:
        """Open another session, which gets all further messages; the present one hears nothing more."""
        self.session = session
        session.open()

    def reject(self, status: int, text: str) -> None:
        """Answer the request with an HTTP status and one line of text, and close."""
        self._protocol.send_response(self._protocol.reject(status, text + "\n"))
        self._write_protocol()

    # Reading

    def pause(self) -> None:
        """Stop reading: the client's writes will block."""
        if self.is_reading and self._fd >= 0:
            self.is_reading = False
            self._poller.remove_reader(self._fd)

    def resume(self) -> None:
        if not self.is_reading and self._fd >= 0:
            self.is_reading = True
            self._poller.add_reader(self._fd, self._read)

    def drain(self) -> None:
        """Read what an exited process left in its socket, so that its last results count."""
        while self._fd >= 0 and self._read():
            pass

    def _read(self) -> bool:
        """Read once and act on it; return False if there was nothing to read."""
        data: bytes | memoryview
        try:
            if self._splitter.pending > READ_SIZE:
                buffer = large_buffer()
                data = memoryview(buffer)[: self._socket.recv_into(buffer)]
            else:
                data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self.abort()
            return False
        self.received_at = self._loop.time()
        if self._is_discarding:
            return True
        if self._protocol.state is State.CONNECTING:
            self._take_handshake(data)
        else:
            self._take_frames(data)
        return True

    def _take_handshake(self, data: bytes | memoryview) -> None:
        if self._ends_after_write:
            return
        self._handshake_bytes += len(data)
        if self._handshake_bytes > MAX_HANDSHAKE:
            self.abort()
            return
        self._protocol.receive_data(bytes(data))
        events = self._protocol.events_received()
        if len(events) > 1:
            self.abort()  # frames before the handshake is answered: no client does that
        elif events and isinstance(events[0], Request):
            self._on_request(self, events[0])
        else:
            self._write_protocol()

    def _take_frames(self, data: bytes | memoryview) -> None:
        received: Received = []
        for is_plain, frame in self._splitter.feed(data):
            if not is_plain:
                if not self._take_ping(frame):
                    self._protocol.receive_data(frame)
                    self._assemble(received)
            elif self._protocol.state is not State.OPEN:
                break  # frames after a close are ignored
            elif self._protocol.current_size is None:
                received.append((TEXT, frame))
            else:
                self._protocol.fail(1002, "expected a continuation frame")
        self._send_pong()
        self._write_protocol()
        if received and self.session is not None and _is_utf8(received):
            self.session.on_messages(received)
        elif received:
            self.close(1007)
        if self._protocol.state is not State.OPEN:
            self._detach()
        self._hold_unfinished()

    def _take_ping(self, frame: bytes) -> bool:
        """Take a ping or a pong; return False for any other frame. Only the last ping is answered (RFC 6455, 5.5.3)."""
        if frame[0] not in (_PING, _PONG) or frame[1] & ~MASKED > _MAX_CONTROL or not self.is_open:
            return False
        if frame[0] == _PING:
            self._owed_pong = apply_mask(frame[_CONTROL_HEAD:], frame[2:_CONTROL_HEAD])
        return True

    def _hold_unfinished(self) -> None:
        """Hold a large unfinished message. A client that goes beyond what the engine has for it is refused."""
        if self.held or self._splitter.pending > READ_SIZE or self._fragment_bytes > READ_SIZE:
            self._count_held()
            if self.is_open and self._budget.is_exhausted_by(self.held):
                self.refuse()

    def _count_held(self) -> None:
        self._budget.set(self, self._splitter.pending + self._fragment_bytes + self.unsent_bytes)

    def refuse(self) -> None:
        """End the connection because the engine's memory is used up; what else the client sends is not kept."""
        self.close(TRY_AGAIN_LATER, "the engine's memory is used up")
        self._is_discarding = True
        self._drop_received()

    def _drop_received(self) -> None:
        self._splitter = ClientFrameSplitter(apply_mask, MAX_MESSAGE)
        self._fragments = []
        self._fragment_bytes = 0
        self._count_held()

    def _assemble(self, received: Received) -> None:
        """Join the fragments that the library read into messages; it answers control frames itself."""
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._opcode = int(frame.opcode)
                self._fragments = [bytes(frame.data)]
            elif frame.opcode is Opcode.CONT:
                self._fragments.append(bytes(frame.data))
            else:
                continue
            self._fragment_bytes += len(frame.data)
            if frame.fin:
                received.append((self._opcode, b"".join(self._fragments)))
                self._fragments = []
                self._fragment_bytes = 0
            elif len(self._fragments) > MAX_FRAGMENTS:
                self._protocol.fail(1009, "too many fragments")

    # Writing

    def send_lines(self, lines: Iterable[bytes]) -> None:
        """Send one text message per line; what the kernel does not take follows when there is room."""
        if self.is_open:
            self._write(text_chunks(lines))

    def send(self, opcode: int, data: bytes) -> None:
        """Send one message; the session's `on_written` is called when the kernel has taken it."""
        if self.is_open:
            self._write(message_chunks(opcode, data, len(data) + 1))

    def ping(self) -> None:
        """Send a ping; any answer moves `received_at`."""
        if self.is_open:
            self._write([(header(FINAL | PING, 0), 0)])

    def _send_pong(self) -> None:
        """Answer the last ping; while the client reads nothing one answer waits, and not one for each ping."""
        payload = self._owed_pong
        if payload is not None and not self._is_waiting_for_room and self.is_open:
            self._owed_pong = None
            self._write([(header(_PONG, len(payload)) + payload, 0)])

    def _write_protocol(self) -> None:
        """Write the library's bytes. An empty write of the library means that no more will follow."""
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
            self.unsent_bytes += len(data) + PIECE_OVERHEAD
        if not self._is_waiting_for_room:
            self.sent_at = self._loop.time()
            self._write_pending()
        if self._is_waiting_for_room:
            self._count_held()
            if self._budget.is_exhausted_by(self.held):
                self._loop.call_soon(self.abort)

    def _write_pending(self) -> None:
        pending = self._pending
        credits = 0
        try:
            while pending:
                data, credit = pending[0]
                count = self._socket.send(data)
                self.unsent_bytes -= count
                if count == len(data):
                    pending.popleft()
                    self.unsent_bytes -= PIECE_OVERHEAD
                    credits += credit
                else:
                    # Credit for a partial write at once: a line that may have arrived whole must count as started.
                    credits += min(count, credit)
                    pending[0] = (data[count:], max(credit - count, 0))
        except (BlockingIOError, InterruptedError):
            if not self._is_waiting_for_room:
                self._is_waiting_for_room = True
                self._poller.add_writer(self._fd, self._on_writable)
        except OSError:
            self._loop.call_soon(self.abort)
            pending.clear()
            self.unsent_bytes = 0
        if credits:
            self.sent_at = self._loop.time()
            if self.session is not None:
                self.session.on_written(credits)

    def _on_writable(self) -> None:
        self._poller.remove_writer(self._fd)
        self._is_waiting_for_room = False
        self.sent_at = self._loop.time()
        self._write_pending()
        self._count_held()
        self._send_pong()
        if self._ends_after_write and not self._pending:
            self._shut_down()
        elif self.is_closing:
            self._await_end()

    # Closing

    def close(self, code: int | None = None, reason: str = "") -> None:
        """Send a close frame and detach the session; the socket is closed when the client has answered."""
        if self.is_open:
            self._protocol.send_close(code, reason)
            self._write_protocol()
        self._detach()
        self.resume()
        self._await_end()

    @property
    def is_closing(self) -> bool:
        """Whether a close frame was sent or received: no message can follow, but earlier ones may still be unsent."""
        return self._protocol.state is State.CLOSING

    def _await_end(self) -> None:
        """Once everything is written, give the client `CLOSE_TIMEOUT` to answer."""
        if self._timer is None and self._fd >= 0 and not self._pending:
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Close the socket now."""
        if self._fd < 0:
            return
        self.pause()
        if self._is_waiting_for_room:
            self._poller.remove_writer(self._fd)
        if self._timer is not None:
            self._timer.cancel()
        self._fd = -1
        # What the connection holds is freed here, whoever still refers to it: the garbage collector comes rarely.
        self._pending.clear()
        self.unsent_bytes = 0
        self._drop_received()
        self._protocol.parser.close()  # a generator of the library that refers to its protocol
        self._socket.close()
        self._detach()
        self._on_closed(self)

    def _detach(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.on_closed()

    def _shut_down(self) -> None:
        """End the engine's direction after the last write, and wait for the client to read it and close."""
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
