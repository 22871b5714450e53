"""The transport of a worker started by hand: a WebSocket to the engine, opened again whenever it breaks.

To the dispatcher it is a stream of lines. Calls that are written without a connection wait for the next one, up to a
bound. The greeting of a connection repeats the registrations; all other lines (answers, cancels) are dropped, because
they belong to the lost connection. Backoff and replay follow the public contract.
"""

from __future__ import annotations

import base64
import os
import random
import select
import socket
from collections import deque
from threading import Event, Lock
from time import monotonic

from iii.errors import IIIError
from iii.protocol.frames import CLOSE, PING, PONG, TEXT
from iii.worker.transport.websocket_frames import (
    ServerFrameReader,
    WebSocketError,
    check_response,
    frames,
    request_bytes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_SIZE = 64 * 1024
HANDSHAKE_TIMEOUT = 10.0
# After so much silence the worker pings.
PING_INTERVAL = 20.0
# Engines ping every 15 to 20 seconds of silence: an engine that stays silent for so long is gone.
SILENCE_TIMEOUT = 60.0
# An engine that has not answered the ping behind the greeting by now does not know that message.
PONG_TIMEOUT = 2.0
_NORMAL_CLOSURE = (1000).to_bytes(2, "big")  # a status code of RFC 6455
# Calls that wait for a connection; the oldest are dropped first (public contract).
MAX_PENDING = 1000
_CALL = b'{"type":"invokefunction"'
# The greeting ends with a ping. The engine acts on messages in order: its pong says that the greeting is done.
_PING_LINE, _PONG_LINE = b'{"type":"ping"}', b'{"type":"pong"}'
_ANNOUNCEMENT = b'"function_id":"engine::workers::register"'


class Reconnection:
    """When to try again: as a `ReconnectionConfig` of the public SDK says, the defaults are those of its contract.

    The first delay is multiplied for each further attempt up to the longest one, and spread by the jitter. `attempts`
    in a row without success end the connection; a negative number of them means never.
    """

    def __init__(self, config: object = None) -> None:
        self._initial_delay = getattr(config, "initial_delay_ms", 1000) / 1000
        self._max_delay = getattr(config, "max_delay_ms", 30_000) / 1000
        self._multiplier = getattr(config, "backoff_multiplier", 2.0)
        self._jitter = getattr(config, "jitter_factor", 0.3)
        self.attempts: int = getattr(config, "max_retries", -1)

    def delay(self, attempt: int, noise: float) -> float:
        """Return the seconds before retry `attempt` (from 1); `noise` is between -1 and 1."""
        seconds: float = min(self._max_delay, self._initial_delay * self._multiplier ** min(attempt - 1, 64))
        return seconds * (1 + self._jitter * noise)


class WebSocket:
    """One open WebSocket. `address` is `ws://host:port/path?query`, wss for TLS."""

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        host, port, target, is_secure = parse_address(address)
        self._reader = ServerFrameReader()
        self._received: list[tuple[int, bytes]] = []
        self._sending = Lock()
        self.socket = socket.create_connection((host, port), timeout=HANDSHAKE_TIMEOUT)
        try:
            if is_secure:
                import ssl  # wss only

                self.socket = ssl.create_default_context().wrap_socket(self.socket, server_hostname=host)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", target, headers)
            self.socket.settimeout(None)
        except BaseException:
            self.socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def _shake_hands(self, host: str, target: str, headers: dict[str, str]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(request_bytes(host, target, key, headers))
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.socket.recv(READ_SIZE)
            if not part or len(data) > READ_SIZE:
                raise WebSocketError("the server closed the connection during the handshake")
            data += part
        head, _, first_bytes = data.partition(b"\r\n\r\n")
        check_response(head, key)
        self._received = self._reader.feed(first_bytes)

    def receive(self, timeout: float | None) -> list[tuple[int, bytes]] | None:
        """Return what has arrived, control frames included; None after `timeout` seconds. OSError at the end."""
        if self._received:
            received, self._received = self._received, []
            return received
        pending = getattr(self.socket, "pending", None)
        if timeout is not None and not (pending and pending()) and not self._poll.poll(timeout * 1000):
            return None
        data = self.socket.recv(READ_SIZE)
        if not data:
            raise WebSocketError("the server closed the connection")
        return self._reader.feed(data)

    def send(self, opcode: int, *payloads: bytes) -> None:
        """Send each payload as a message, together."""
        mask = os.urandom(4)
        data = b"".join([frames(opcode, payload, mask) for payload in payloads])
        with self._sending:
            self.socket.sendall(data)

    def finish(self, timeout: float) -> None:
        """Send a close frame, and wait until the engine has read everything and sends one too, at most `timeout` s."""
        try:
            self.send(CLOSE, _NORMAL_CLOSURE)
            # Closing the socket at once could discard bytes that the engine has not read yet.
            while CLOSE not in {opcode for opcode, _ in self.receive(timeout) or [(CLOSE, b"")]}:
                pass
        except OSError:
            pass  # the engine has closed the connection first
        finally:
            self.socket.close()

    def close(self) -> None:
        """Send a close frame and close; a thread that blocks in `receive` gets the end."""
        try:
            self.send(CLOSE, _NORMAL_CLOSURE)
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already
        self.socket.close()


class WebSocketTransport:
    """A `Transport` over WebSockets, one after the other.

    `greeting()` returns the lines that open every connection: who the worker is and what it has registered.
    `on_state` is called with `connecting`, `connected`, `reconnecting` or `failed`, `on_lost` when a connection has
    broken. `connected` is set by the first connection, and when there will be none; `failure` is the last error.
    """

    owns_process = False
    input_fd: int | None = None

    def __init__(
        self,
        address: str,
        headers: dict[str, str],
        reconnection: Reconnection,
        *,
        greeting: Callable[[], list[bytes]],
        on_state: Callable[[str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._address = address
        self._headers = headers
        self._reconnection = reconnection
        self._greeting = greeting
        self._on_state = on_state
        self._on_lost = on_lost
        self._websocket: WebSocket | None = None
        self._changing = Lock()
        self._pending: deque[bytes] = deque(maxlen=MAX_PENDING)
        self._closing = Event()
        self._attempts = 0
        self._next_attempt = 0.0
        self._last_received = 0.0
        self._is_greeted = False
        self.connected = Event()
        self.failure: OSError | None = None

    def read(self, timeout: float | None) -> bytes | None:
        deadline = None if timeout is None else monotonic() + timeout
        while not self._closing.is_set():
            remaining = None if deadline is None else max(0.0, deadline - monotonic())
            websocket = self._websocket
            if websocket is None:
                self._connect_when_due(remaining)
            elif lines := self._read_lines(websocket, remaining):
                return lines
            if deadline is not None and monotonic() >= deadline:
                return None
        return b""

    def _read_lines(self, websocket: WebSocket, remaining: float | None) -> bytes:
        """Return the lines that arrive before the next check of the connection is due; none of a lost one."""
        check_interval = PING_INTERVAL if self._is_greeted else PONG_TIMEOUT
        timeout = check_interval if remaining is None else min(remaining, check_interval)
        try:
            messages = websocket.receive(timeout)
            if messages is not None:
                self._last_received = monotonic()
                return self._lines_from(websocket, messages)
            silence = monotonic() - self._last_received
            if not self._is_greeted and silence >= PONG_TIMEOUT:
                self._begin(websocket)
            if silence > SILENCE_TIMEOUT:
                raise WebSocketError(f"the engine has been silent for {silence:.0f} s")
            if silence > PING_INTERVAL:
                websocket.send(PING, b"")
        except OSError as error:
            self.failure = error
            with self._changing:
                self._websocket = None
                # Under the lock: lines that are written from here on belong to the next connection.
                self._on_lost()
            websocket.close()
        return b""

    def _lines_from(self, websocket: WebSocket, messages: list[tuple[int, bytes]]) -> bytes:
        lines = []
        for opcode, payload in messages:
            if opcode == PING:
                websocket.send(PONG, payload)
            elif opcode == CLOSE:
                raise WebSocketError("the engine closed the connection")
            elif not self._is_greeted and payload == _PONG_LINE:
                self._begin(websocket)
            elif opcode != PONG:
                # In valid JSON a line break stands between tokens; invalid JSON is refused all the same.
                lines.append(payload.replace(b"\n", b" "))
        return b"".join([line + b"\n" for line in lines])

    def _connect_when_due(self, remaining: float | None) -> None:
        """Wait for the time of the next attempt, at most `remaining` seconds, and connect once it has come.

        A failure sets the time of another attempt; after the last one that is allowed, it closes the transport.
        """
        delay = self._next_attempt - monotonic()
        if delay > 0:
            self._closing.wait(delay if remaining is None else min(delay, remaining))
        if monotonic() < self._next_attempt or self._closing.is_set():
            return
        self._on_state("reconnecting" if self.connected.is_set() else "connecting")
        try:
            websocket = WebSocket(self._address, self._headers)
            self._greet(websocket)
        except OSError as error:
            self.failure = error
            self._attempts += 1
            if 0 <= self._reconnection.attempts < self._attempts:
                self._on_state("failed")
                self._closing.set()
                self.connected.set()
            else:
                self._next_attempt = monotonic() + self._reconnection.delay(self._attempts, random.uniform(-1, 1))

    def _greet(self, websocket: WebSocket) -> None:
        """Send who the worker is and what it has; calls wait until the engine has acted on that (`_begin`)."""
        with self._changing:
            try:
                websocket.send(TEXT, *self._greeting(), _PING_LINE)
            except OSError:
                websocket.close()
                raise
            self._is_greeted = False
            self._websocket = websocket
        self._attempts = 0
        self._last_received = monotonic()

    def _begin(self, websocket: WebSocket) -> None:
        """Send the pending calls: the engine has acted on the greeting, so they find this worker's own functions."""
        with self._changing:
            self._is_greeted = True
            pending = list(self._pending)
            self._pending.clear()
            websocket.send(TEXT, *pending)
        self.connected.set()
        self._on_state("connected")

    def write(self, data: bytes) -> None:
        """Send lines; without a connection they wait for it. OSError once closed."""
        if self._closing.is_set():
            raise BrokenPipeError("the worker is closed")
        lines = [line for line in data.split(b"\n") if line]
        with self._changing:
            websocket = self._websocket
            if websocket is None or not self._is_greeted:
                self._pending.extend(filter(_is_call, lines))
                lines = [line for line in lines if not _is_call(line)]
            if websocket is None:
                return
        try:
            websocket.send(TEXT, *lines)
        except OSError:
            # The reading thread finds the same end, fails the calls of this connection, these among them, and connects
            # anew.
            return

    def reconnect(self) -> bool:
        # Not at once: an engine that says stop to every connection must not be asked without a pause.
        self._next_attempt = monotonic() + self._reconnection.delay(1, random.uniform(-1, 1))
        if (websocket := self._websocket) is not None:
            websocket.close()  # the thread that reads finds the end, and connects when it is due
        return True

    def abandon(self) -> None:
        # The parent's locks may have been held when it was forked: none is used here.
        self._closing = Event()
        self._closing.set()
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            os.close(websocket.socket.detach())

    def close(self) -> None:
        self._closing.set()
        self.connected.set()
        with self._changing:
            websocket, self._websocket = self._websocket, None
        if websocket is not None:
            websocket.close()


def _is_call(line: bytes) -> bool:
    return line.startswith(_CALL) and _ANNOUNCEMENT not in line[:200]


def parse_address(address: str) -> tuple[str, int, str, bool]:
    """Return host, port, target (path and query) and whether TLS is asked for. IIIError for anything else."""
    scheme, _, location = address.partition("://")
    authority, slash, path = location.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, "443" if scheme == "wss" else "80"
    if scheme not in ("ws", "wss") or not host or not port.isdigit():
        raise IIIError(f"an engine's address is ws://host:port, not {address!r}")
    return host.strip("[]"), int(port), slash + path or "/", scheme == "wss"
