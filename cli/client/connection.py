"""A blocking connection to the engine: JSON messages, one a line, over the unix socket.

Part of the short path, so it speaks plain dicts and imports neither asyncio nor the engine's codec; the messages are
the protocol's. A ws:// address goes through `websocket`.
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

    OnItem = Callable[[dict[str, Any]], object]

    class Transport(Protocol):
        """The part of a socket that is used here."""

        def sendall(self, data: bytes, /) -> None: ...
        def recv(self, size: int, /) -> bytes: ...
        def settimeout(self, seconds: float | None, /) -> None: ...
        def close(self) -> None: ...


# What stands for the part of an address that is not given.
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", "49134"
# Seconds. The engine greets at once; an engine that has not by then is frozen, and waiting on would never end.
GREETING_TIMEOUT = 10.0
# Seconds after a call's deadline within which the engine must have reported that the deadline has passed.
DEADLINE_GRACE = 2.0
# A read larger than this makes every read slower (a fresh mapping per buffer).
CHUNK = 64 * 1024
# Items of a stream that the callee may send before we have taken them.
WINDOW = 64


def address_from(engine: str | None, host: str | None, port: str | None) -> str | None:
    """Return the engine's address that options name: `engine` itself, or the host and port of its WebSocket listener.

    None without any of them. Raises UsageError for both kinds, and for a port that is none.
    """
    if host is None and port is None:
        return engine
    from cli.client.errors import UsageError  # few calls name a host

    if engine is not None:
        raise UsageError("--engine, and --address with --port, name the same", "keep one of them")
    port = DEFAULT_PORT if port is None else port
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise UsageError(f"--port must be from 1 to 65535, got {port}")
    host = DEFAULT_HOST if host is None else host.strip("[]")
    if not host or any(letter in host for letter in "/?#@ ") or host.startswith(("ws:", "wss:")):
        raise UsageError(f"--address must be a host, got {host!r}", "give a whole address with --engine ws://HOST:PORT")
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


def connect(engine: str | None = None) -> Connection:
    """Find the engine and connect. Raises EngineNotRunning."""
    address = find_engine(engine, os.environ, os.getcwd())
    if address is None:
        raise _not_running("no engine is running")
    if address.startswith(("ws://", "wss://")):
        from cli.client.websocket import WebSocket  # most calls use the socket

        return Connection(WebSocket(address))
    # The C module: the socket module around it builds enums that cost a fifth of a whole `iii trigger`.
    import _socket

    opened = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        opened.connect(address)
    except OSError:
        opened.close()
        raise _not_running(f"no engine answers at {address}" if engine else "no engine is running") from None
    return Connection(opened)


class Connection:
    """One conversation with the engine; a context manager."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._buffer = b""
        self._lines: list[bytes] = []
        self._is_greeted = False
        self._taken = 0  # items of a stream that we have taken and not yet acknowledged

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
            raise _not_running() from None

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """Return the next message. Raises TimeoutError after `timeout` seconds, EngineNotRunning if it is gone."""
        while not self._lines:
            self._transport.settimeout(timeout)
            try:
                data = self._transport.recv(CHUNK)
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                raise _not_running()
            self._is_greeted = True
            if b"\n" not in data:
                self._buffer += data
                continue
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._lines += [line for line in lines if line.strip()]
        try:
            message: dict[str, Any] = decode_line(self._lines.pop(0).decode())
        except ValueError:
            raise _not_running("what answers there is no engine") from None
        return message

    def await_message(
        self, kind: str, timeout: float | None, invocation_id: str | None = None, on_item: OnItem | None = None
    ) -> dict[str, Any]:
        """Return the next message of type `kind` (and of one call), skipping others; `on_item` gets a stream's items.

        Raises TimeoutError after `timeout` seconds, or GREETING_TIMEOUT if the engine has not sent anything at all.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._is_greeted:
                left = GREETING_TIMEOUT if left is None else min(left, GREETING_TIMEOUT)
            message = self.receive(left)
            if message.get("invocation_id") != invocation_id:
                continue
            if message.get("type") == kind:
                return message
            if message.get("type") == "invocationitem":
                if on_item is not None:
                    on_item(message)
                # Only now may the callee go on: it waits for a terminal, or a program behind a pipe, that is slow.
                self._taken += "item" in message
                if self._taken and (self._taken >= WINDOW // 4 or not self._lines):
                    self.send({"type": "itemstaken", "invocation_id": invocation_id, "count": self._taken})
                    self._taken = 0

    def request(
        self, function_id: str, data: Any, timeout_ms: int | None = None, on_item: OnItem | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Call a function and return its whole `invocationresult`, error or not.

        `fields` are further fields of the invocation (`action`, `metadata`, `namespace`). `on_item` gets every
        `invocationitem` of a call that asks for a stream. `timeout_ms` is the call's budget, which the engine enforces;
        raises EngineNotRunning when the engine itself falls silent.
        """
        invocation_id = new_id()
        message = {"type": "invokefunction", "invocation_id": invocation_id, "function_id": function_id, "data": data}
        if timeout_ms is not None:
            fields["deadline_ms"] = timeout_ms
        self.send(message | fields)
        try:
            timeout = None if timeout_ms is None else timeout_ms / 1000 + DEADLINE_GRACE
            return self.await_message("invocationresult", timeout, invocation_id, on_item)
        except TimeoutError:
            if not self._is_greeted:
                raise _not_running("the engine does not answer") from None
            error = {"code": "TIMEOUT", "message": f"no answer within {timeout_ms} ms"}
            return {"invocation_id": invocation_id, "function_id": function_id, "error": error}

    def call(self, function_id: str, data: Any = None, timeout_ms: int = 30_000) -> Any:
        """Call a function and return its result. Raises InvocationError."""
        return self._result_of(self.request(function_id, {} if data is None else data, timeout_ms))

    def look_up(self, function_id: str, data: Any = None) -> Any:
        """As `call`, for what is only shown to a person: that is no work of the project, and not traced nor counted.

        The engine is told so in W3C's words: by a trace context whose sender does not record.
        """
        trace = new_id().replace("-", "")
        traceparent = f"00-{trace}-{trace[:16]}-00"
        return self._result_of(self.request(function_id, data or {}, 30_000, traceparent=traceparent))

    def _result_of(self, answer: dict[str, Any]) -> Any:
        if answer.get("error"):
            from cli.client.error_hints import explained  # only a failure pays for it

            raise explained(self.request, answer["function_id"], answer["error"])
        return answer.get("result")

    def function_info(self, function_id: str, namespace: str | None = None) -> dict[str, Any]:
        """Return the engine's answer to `engine::functions::info`; its `result` describes the function."""
        request = {"function_id": function_id} | ({"namespace": namespace} if namespace else {})
        return self.request("engine::functions::info", request, 5000)

    def settle(self) -> None:
        """Return once the engine has read everything sent so far (messages of one peer are read in order)."""
        self.send({"type": "ping"})
        try:
            self.await_message("pong", GREETING_TIMEOUT)
        except TimeoutError:
            raise _not_running("the engine does not answer") from None


def new_id() -> str:
    """Return a random UUID. By hand: importing uuid costs as much as the whole call."""
    text = (int.from_bytes(os.urandom(16), "big") & ~(0xF << 76) & ~(0x3 << 62) | 4 << 76 | 2 << 62).to_bytes(16, "big")
    digits = text.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _not_running(message: str = "the engine stopped before it answered") -> Exception:
    from cli.client.errors import not_running  # only a failure pays for it

    return not_running(message)
