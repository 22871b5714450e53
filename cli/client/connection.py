"""A blocking connection to the engine: JSON messages, one a line, over the unix socket.

Part of the short path, so it speaks plain dicts and imports neither asyncio nor the engine's codec; the messages are
the protocol's. A ws:// address goes through `websocket`. Called by every command that asks the engine something.
"""

from __future__ import annotations

import os
import time

from cli.client.discovery import find_engine
from cli.text.json import decode_line, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Transport(Protocol):
        """The part of a socket that is used here."""

        def sendall(self, data: bytes, /) -> None: ...
        def recv(self, size: int, /) -> bytes: ...
        def settimeout(self, seconds: float | None, /) -> None: ...
        def close(self) -> None: ...


# The engine greets at once; one that has not after this long is frozen, and waiting on would never end.
GREETING_TIMEOUT = 10.0
# How much longer than the engine's own deadline we wait for it to say that the deadline has passed.
GRACE = 2.0
# A read larger than this makes every read slower (a fresh mapping per buffer).
CHUNK = 64 * 1024
# How many items of a stream may be on their way to us.
WINDOW = 64


def connect(engine: str | None = None) -> Connection:
    """Find the engine and connect. Raises EngineNotRunning."""
    address = find_engine(engine, os.environ, os.getcwd())
    if address is None:
        from cli.client.errors import not_running  # only a failure pays for it

        raise not_running()
    if address.startswith(("ws://", "wss://")):
        from cli.client.websocket import WebSocket  # most calls use the socket

        return Connection(WebSocket(address))
    return Connection(_open_socket(address, is_explicit=bool(engine)))


def _open_socket(path: str, *, is_explicit: bool) -> Transport:
    # The C module: the socket module around it builds enums that cost a fifth of a whole `iii trigger`.
    import _socket  # with a comment of its own

    opened = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        opened.connect(path)
    except OSError:
        opened.close()
        from cli.client.errors import not_running  # only a failure pays for it

        raise not_running(f"no engine answers at {path}" if is_explicit else "no engine is running") from None
    return opened


class Connection:
    """One conversation with the engine; a context manager."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._buffer = b""
        self._lines: list[bytes] = []
        self._is_greeted = False
        # Called with every `invocationitem` of a call that asked for a stream.
        self.on_item: Callable[[dict[str, Any]], object] = _ignore
        self._taken = 0

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message. Raises UsageError for a value that JSON or UTF-8 cannot hold."""
        try:
            line = encode(message).encode()
        except (ValueError, UnicodeEncodeError) as error:
            from cli.client.errors import UsageError  # only a failure pays for it

            raise UsageError(f"this cannot be sent as JSON: {error}") from None
        try:
            self._transport.sendall(line + b"\n")
        except OSError:
            raise _lost() from None

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the next message. Raises TimeoutError after `timeout` seconds, EngineNotRunning when it is gone."""
        while not self._lines:
            self._read(timeout)
        try:
            message: dict[str, Any] = decode_line(self._lines.pop(0).decode())
        except ValueError:
            raise _lost("what answers there is no engine") from None
        return message

    def _read(self, timeout: float | None) -> None:
        self._transport.settimeout(timeout)
        try:
            data = self._transport.recv(CHUNK)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        if not data:
            raise _lost()
        self._is_greeted = True
        if b"\n" not in data:
            self._buffer += data
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._lines += [line for line in lines if line.strip()]

    def await_message(self, kind: str, timeout: float | None, invocation_id: str | None = None) -> dict[str, Any]:
        """Return the next message of type `kind` (and of one call), skipping others."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            message = self.receive(self._left(deadline))
            if message.get("invocation_id") != invocation_id:
                continue
            if message.get("type") == kind:
                return message
            if message.get("type") == "invocationitem":
                self.on_item(message)
                self._note_taken(message)

    def _note_taken(self, message: dict[str, Any]) -> None:
        """Let the source of the items go on: it waits for a terminal, or a program behind a pipe, that is slow."""
        self._taken += "item" in message
        if self._taken and (self._taken >= WINDOW // 4 or not self._lines):
            count, self._taken = self._taken, 0
            self.send({"type": "itemstaken", "invocation_id": message["invocation_id"], "count": count})

    def _left(self, deadline: float | None) -> float | None:
        if not self._is_greeted:
            left = GREETING_TIMEOUT if deadline is None else deadline - time.monotonic()
            return max(0.0, min(left, GREETING_TIMEOUT))
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def exchange(self, function_id: str, data: Any, timeout_ms: int | None = None, **fields: Any) -> dict[str, Any]:
        """Call a function and return its whole `invocationresult`, error or not.

        `fields` are further fields of the invocation (`action`, `metadata`, `namespace`). `timeout_ms` is the
        call's budget, which the engine enforces; raises EngineNotRunning when the engine itself falls silent.
        """
        invocation_id = new_id()
        message = {"type": "invokefunction", "invocation_id": invocation_id, "function_id": function_id, "data": data}
        if timeout_ms is not None:
            fields["deadline_ms"] = timeout_ms
        self.send(message | fields)
        try:
            timeout = None if timeout_ms is None else timeout_ms / 1000 + GRACE
            return self.await_message("invocationresult", timeout, invocation_id)
        except TimeoutError:
            if not self._is_greeted:
                raise _lost("the engine does not answer") from None
            error = {"code": "TIMEOUT", "message": f"no answer within {timeout_ms} ms"}
            return {"invocation_id": invocation_id, "function_id": function_id, "error": error}

    def call(self, function_id: str, data: Any = None, timeout_ms: int = 30_000) -> Any:
        """Call a function and return its result. Raises InvocationError."""
        answer = self.exchange(function_id, {} if data is None else data, timeout_ms)
        if answer.get("error"):
            from cli.client.errors import invocation_error  # only a failure pays for it

            raise invocation_error(function_id, answer["error"])
        return answer.get("result")

    def settle(self) -> None:
        """Return once the engine has read everything sent so far (messages of one peer are read in order)."""
        self.send({"type": "ping"})
        try:
            self.await_message("pong", GREETING_TIMEOUT)
        except TimeoutError:
            raise _lost("the engine does not answer") from None


def new_id() -> str:
    """Return a random UUID. By hand: importing uuid costs as much as the whole call."""
    text = (int.from_bytes(os.urandom(16), "big") & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62).to_bytes(16, "big")
    digits = text.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _ignore(_: dict[str, Any]) -> None:
    """An item that nobody asked for."""


def _lost(message: str = "the engine stopped before it answered") -> Exception:
    from cli.client.errors import not_running  # only a failure pays for it

    return not_running(message)
