"""The wire of a worker started by hand: one WebSocket to the engine, made again whenever it breaks.

Looks like a stream of lines to the dispatcher. Calls that are written while there is no connection wait for it,
bounded; registrations are said again by the greeting, and nobody waits for the rest any more. Backoff and replay
follow the public contract.
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

from iii.protocol.websocket_frames import CLOSE, PING, PONG, TEXT
from iii.worker.transport.websocket_frames import (
    ServerFrameReader,
    WebSocketError,
    check_response,
    frame,
    frames,
    request_bytes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_SIZE = 64 * 1024
HANDSHAKE_SECONDS = 10.0
# Engines ping every 15 to 20 seconds of silence: one that stays silent for so long is gone.
PING_AFTER, GONE_AFTER = 20.0, 60.0
# An engine that has not answered the question behind the greeting by now does not know it.
ANSWER_SECONDS = 2.0
# Messages that wait for a connection; the oldest go first (public contract).
MAX_PENDING = 1000
_CALL = b'{"type":"invokefunction"'
# Asked behind the greeting; messages are acted on in order.
_QUESTION, _ANSWER = b'{"type":"ping"}', b'{"type":"pong"}'
_INTRODUCTION = b'"function_id":"engine::workers::register"'


class Reconnection:
    """How long to wait before the next attempt: `initial` seconds, times `factor` up to `limit`, give or take `jitter`.

    `attempts` in a row without success end the connection; negative means never.
    """

    def __init__(
        self,
        initial: float = 1.0,
        limit: float = 30.0,
        factor: float = 2.0,
        jitter: float = 0.3,
        attempts: int = -1,
    ) -> None:
        self.initial = initial
        self.limit = limit
        self.factor = factor
        self.jitter = jitter
        self.attempts = attempts

    @classmethod
    def from_config(cls, config: object) -> Reconnection:
        """Return the numbers of a `ReconnectionConfig` of the public SDK (milliseconds), its defaults for None."""
        plain = cls()
        return cls(
            getattr(config, "initial_delay_ms", plain.initial * 1000) / 1000,
            getattr(config, "max_delay_ms", plain.limit * 1000) / 1000,
            getattr(config, "backoff_multiplier", plain.factor),
            getattr(config, "jitter_factor", plain.jitter),
            getattr(config, "max_retries", plain.attempts),
        )

    def delay(self, attempt: int, noise: float) -> float:
        """Return the seconds before retry `attempt` (from 1); `noise` is between -1 and 1."""
        plain = min(self.limit, self.initial * self.factor ** min(attempt - 1, 64))
        return plain * (1 + self.jitter * noise)


class Wire:
    """One open WebSocket. `address` is `ws://host:port/path?query`, wss for TLS."""

    def __init__(self, address: str, headers: dict[str, str], timeout: float = HANDSHAKE_SECONDS) -> None:
        host, port, target, is_secure = parse_address(address)
        self._reader = ServerFrameReader()
        self._received: list[tuple[int, bytes]] = []
        self._sending = Lock()
        self.socket = socket.create_connection((host, port), timeout=timeout)
        try:
            if is_secure:
                self._secure(host)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._shake_hands(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", target, headers)
            self.socket.settimeout(None)
        except BaseException:
            self.socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def _secure(self, host: str) -> None:
        import ssl  # wss only

        self.socket = ssl.create_default_context().wrap_socket(self.socket, server_hostname=host)

    def _shake_hands(self, host: str, target: str, headers: dict[str, str]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(request_bytes(host, target, key, headers))
        data = b""
        while b"\r\n\r\n" not in data:
            part = self.socket.recv(READ_SIZE)
            if not part or len(data) > READ_SIZE:
                raise WebSocketError("the server closed the connection during the handshake")
            data += part
        head, _, rest = data.partition(b"\r\n\r\n")
        check_response(head, key)
        self._received = self._reader.feed(rest)

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

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one message."""
        data = frames(opcode, payload, os.urandom(4))
        with self._sending:
            self.socket.sendall(data)

    def send_texts(self, lines: list[bytes]) -> None:
        """Send each line as a text message, together."""
        mask = os.urandom(4)
        data = b"".join([frames(TEXT, line, mask) for line in lines])
        with self._sending:
            self.socket.sendall(data)

    def finish(self, seconds: float) -> None:
        """Say goodbye, and wait until the other side has read everything and says so too, at most `seconds`."""
        try:
            self.send(CLOSE, (1000).to_bytes(2, "big"))
            # Closing the socket at once could throw away what the engine has not read yet.
            while CLOSE not in {opcode for opcode, _ in self.receive(seconds) or [(CLOSE, b"")]}:
                pass
        except OSError:
            pass  # the other side was faster
        finally:
            self.socket.close()

    def close(self, code: int = 1000) -> None:
        """Say goodbye and close; a thread that blocks in `receive` gets the end."""
        try:
            with self._sending:
                self.socket.sendall(frame(CLOSE, code.to_bytes(2, "big"), os.urandom(4)))
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already
        self.socket.close()


class WebSocketTransport:
    """A `Transport` over WebSockets, one after the other.

    `greeting` gives the lines that open every connection: who this is and what it has. `on_state` hears
    `connecting`, `connected`, `reconnecting`, `failed`; `on_lost` is called when a connection has broken.
    """

    owns_process = False
    input_fd: int | None = None

    def __init__(self, address: str, headers: dict[str, str], reconnection: Reconnection) -> None:
        self._address = address
        self._headers = headers
        self._reconnection = reconnection
        self._wire: Wire | None = None
        self._changing = Lock()
        self._pending: deque[bytes] = deque(maxlen=MAX_PENDING)
        self._closing = Event()
        self._attempts = 0
        self._due = 0.0
        self._heard = 0.0
        self._has_connected = False
        self._is_greeted = False
        self.connected = Event()
        self.failure: OSError | None = None
        self.greeting: Callable[[], list[bytes]] = list
        self.on_state: Callable[[str], None] = lambda _: None
        self.on_lost: Callable[[], None] = lambda: None

    def read(self, timeout: float | None) -> bytes | None:
        """Return lines, `b""` once closed or given up, None after `timeout` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self._closing.is_set():
            remaining = None if deadline is None else max(0.0, deadline - monotonic())
            wire = self._wire
            if wire is None:
                self._connect_when_due(remaining)
            else:
                lines = self._read_lines(wire, remaining)
                if lines:
                    return lines
            if deadline is not None and monotonic() >= deadline:
                return None
        return b""

    def _read_lines(self, wire: Wire, remaining: float | None) -> bytes:
        patience = PING_AFTER if self._is_greeted else ANSWER_SECONDS
        wait = patience if remaining is None else min(remaining, patience)
        try:
            messages = wire.receive(wait)
            if messages is None:
                self._look_after(wire)
                return b""
            self._heard = monotonic()
            return self._lines_from(wire, messages)
        except OSError as error:
            self._lose(error)
            return b""

    def _look_after(self, wire: Wire) -> None:
        silence = monotonic() - self._heard
        if not self._is_greeted and silence >= ANSWER_SECONDS:
            self._begin(wire)
        if silence > GONE_AFTER:
            raise WebSocketError(f"the engine has been silent for {silence:.0f} s")
        if silence > PING_AFTER:
            wire.send(PING, b"")

    def _lines_from(self, wire: Wire, messages: list[tuple[int, bytes]]) -> bytes:
        lines = []
        for opcode, payload in messages:
            if opcode == PING:
                wire.send(PONG, payload)
            elif opcode == CLOSE:
                raise WebSocketError("the engine closed the connection")
            elif not self._is_greeted and payload == _ANSWER:
                self._begin(wire)
            elif opcode != PONG:
                # A line break in JSON is between tokens, or the JSON is wrong anyway.
                lines.append(payload.replace(b"\n", b" "))
        return b"".join([line + b"\n" for line in lines])

    # Connecting

    def _connect_when_due(self, remaining: float | None) -> None:
        wait = self._due - monotonic()
        if wait > 0:
            self._closing.wait(wait if remaining is None else min(wait, remaining))
        if monotonic() < self._due or self._closing.is_set():
            return
        self.on_state("reconnecting" if self._has_connected else "connecting")
        try:
            wire = Wire(self._address, self._headers)
            self._open(wire)
        except OSError as error:
            self._retry_later(error)

    def _open(self, wire: Wire) -> None:
        with self._changing:
            try:
                wire.send_texts([*self.greeting(), _QUESTION])
            except OSError:
                wire.close()
                raise
            self._is_greeted = False
            self._wire = wire
        self._attempts = 0
        self._heard = monotonic()

    def _begin(self, wire: Wire) -> None:
        """The engine has acted on the greeting: calls may follow, and find our own functions."""
        with self._changing:
            self._is_greeted = True
            pending = list(self._pending)
            self._pending.clear()
            wire.send_texts(pending)
        self._has_connected = True
        self.connected.set()
        self.on_state("connected")

    def _retry_later(self, error: OSError) -> None:
        self._attempts += 1
        self.failure = error
        if 0 <= self._reconnection.attempts < self._attempts:
            self.on_state("failed")
            self._closing.set()
            self.connected.set()
            return
        self._due = monotonic() + self._reconnection.delay(self._attempts, random.uniform(-1, 1))

    def _lose(self, error: OSError) -> None:
        self.failure = error
        with self._changing:
            wire, self._wire = self._wire, None
            # Under the lock: what is written from here on belongs to the next connection.
            self.on_lost()
        if wire is not None:
            wire.close()

    # Writing

    def write(self, data: bytes) -> None:
        """Send lines; without a connection they wait for it. OSError once closed."""
        if self._closing.is_set():
            raise BrokenPipeError("the worker is closed")
        lines = [line for line in data.split(b"\n") if line]
        with self._changing:
            wire = self._wire
            if wire is None or not self._is_greeted:
                self._pending.extend(filter(_is_call, lines))
                lines = [line for line in lines if not _is_call(line)]
            if wire is None:
                return
        try:
            wire.send_texts(lines)
        except OSError:
            # The reader meets the same end, and connects anew; the calls in here fail with all others then.
            return

    def close(self) -> None:
        """Close for good."""
        self._closing.set()
        self.connected.set()
        with self._changing:
            wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


def _is_call(line: bytes) -> bool:
    return line.startswith(_CALL) and _INTRODUCTION not in line[:200]


def parse_address(address: str) -> tuple[str, int, str, bool]:
    """Return host, port, target (path and query) and whether TLS is asked for. ValueError for anything else."""
    scheme, separator, rest = address.partition("://")
    if scheme not in ("ws", "wss") or not separator:
        raise ValueError(f"an engine's address is ws://host:port, not {address!r}")
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, "443" if scheme == "wss" else "80"
    if not host or not port.isdigit():
        raise ValueError(f"an engine's address is ws://host:port, not {address!r}")
    return host.strip("[]"), int(port), slash + path or "/", scheme == "wss"
