"""Channels: streams of bytes and texts beside the calls, for what is too large or too long for one payload.

`iii.helpers.create_channel` asks the engine for one; a reference to an end travels inside a payload and arrives as a
live reader or writer. Each end is a connection of its own, opened when it is first used: to the engine's unix socket
for supervised workers, a WebSocket for others. The kernel and the engine hold back a writer whose reader is slow.
Each end has blocking methods for threads and async ones for event loops.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from threading import Lock
from urllib.parse import quote

from iii.errors import IIIError
from iii.protocol.frames import BINARY, CLOSE, PING, PONG, TEXT, ChannelFrameError, ChannelFrameSplitter, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any

    from iii.worker.transport.websocket import WebSocket

# Larger writes are cut (public contract), so that a reader gets its first bytes early.
CHUNK = 64 * 1024
# A closing writer waits until the engine has read everything. The engine gives a channel up after five minutes
# without a reader, so it answers before this.
CLOSE_TIMEOUT = 330.0
READ_SIZE = 256 * 1024
OPEN_TIMEOUT = 10.0
# The engine's lines before the channel's bytes are short.
_MAX_HEAD = 64 * 1024


class StreamChannelRef:
    """One end of a channel as a payload holds it: `channel_id`, `access_key`, `direction` (read or write)."""

    def __init__(self, channel_id: str, access_key: str, direction: str) -> None:
        self.channel_id = channel_id
        self.access_key = access_key
        self.direction = direction

    def model_dump(self, **_: Any) -> dict[str, str]:
        """Return the JSON form."""
        return {"channel_id": self.channel_id, "access_key": self.access_key, "direction": self.direction}


class ChannelClosed(OSError):
    """The engine does not open this end of a channel, or has closed it; the text says why."""


class ChannelSocket:
    """One open end over a socket to the engine, with the methods of `WebSocket` that are used here.

    `reference` is the JSON form. OSError when the engine refuses it.
    """

    def __init__(self, connected: socket.socket, reference: dict[str, str]) -> None:
        import json  # few workers have channels

        self.socket = connected
        self._splitter = ChannelFrameSplitter()
        self._received: list[tuple[int, bytes]] = []
        try:
            self.socket.settimeout(OPEN_TIMEOUT)
            self.socket.sendall(json.dumps({"type": "channelopen", **reference}).encode() + b"\n")
            self._received = self._splitter.feed(self._wait_until_open(json.loads))
            self.socket.settimeout(None)
        except BaseException:
            self.socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def _wait_until_open(self, loads: Any) -> bytes:
        """Read the engine's lines up to the one that opens the end; return the bytes that came behind it."""
        data = b""
        while True:
            line, newline, remaining = data.partition(b"\n")
            if not newline:
                part = self.socket.recv(READ_SIZE)
                if not part or len(data) > _MAX_HEAD:
                    raise ChannelClosed("the engine closed the connection")
                data += part
                continue
            answer = loads(line)
            if answer.get("type") == "error":
                raise ChannelClosed(answer["error"]["message"])
            if answer.get("type") == "channelopened":
                return remaining
            data = remaining  # the engine greets every connection; only peers need that line

    def receive(self, timeout: float | None) -> list[tuple[int, bytes]] | None:
        if self._received:
            received, self._received = self._received, []
            return received
        if timeout is not None and not self._poll.poll(timeout * 1000):
            return None
        data = self.socket.recv(READ_SIZE)
        if not data:
            raise ChannelClosed("the other end is closed")
        try:
            return self._splitter.feed(data)
        except ChannelFrameError as error:
            raise ChannelClosed(f"the engine sent {error}") from None

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one message; blocks while the reader is behind. OSError once the reader is gone."""
        self.socket.sendall(frame(opcode, payload))

    def finish(self, timeout: float) -> None:
        """End the stream, and wait at most `timeout` seconds until the engine has read all of it and closes."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(timeout)
            while self.socket.recv(READ_SIZE):
                pass
        except OSError:
            pass  # the engine has closed the connection first, or the reader has left
        finally:
            self.socket.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is closed already
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class ChannelConnector:
    """Connects to ends of channels: at the engine's `address`, with `headers` in a WebSocket handshake."""

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        self._address = address
        self._headers = headers

    def connect(self, ref: StreamChannelRef) -> WebSocket | ChannelSocket:
        """Connect to one end. OSError when the channel is gone, IIIError when there is no engine."""
        address = self._address
        if not address.startswith("ws"):
            path = os.environ.get("III_SOCKET", "")
            if not path:
                raise IIIError("channels need an engine: run this worker under `iii dev`, or with III_URL=ws://...")
            return ChannelSocket(_connected(path), ref.model_dump())
        from iii.worker.transport.websocket import WebSocket  # not for supervised workers

        base, _, query = address.partition("?")
        fields = f"key={quote(ref.access_key, safe='')}&dir={ref.direction}"
        url = f"{base.rstrip('/')}/ws/channels/{quote(ref.channel_id, safe='')}"
        return WebSocket(f"{url}?{query}&{fields}" if query else f"{url}?{fields}", self._headers)


def _connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(OPEN_TIMEOUT)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


class _End:
    """One end, connected at its first use."""

    def __init__(self, connector: ChannelConnector, ref: StreamChannelRef) -> None:
        self._connector = connector
        self.ref = ref
        self._connection: WebSocket | ChannelSocket | None = None
        self._connecting = Lock()
        self._is_closed = False

    def model_dump(self, **_: Any) -> dict[str, str]:
        """Return the reference: a live end inside a payload is passed on."""
        return self.ref.model_dump()

    def _connect(self) -> WebSocket | ChannelSocket:
        with self._connecting:
            if self._is_closed:
                raise ValueError("this end of the channel is closed")
            self._connection = self._connection or self._connector.connect(self.ref)
            return self._connection

    def close(self) -> None:
        """Close this end: a reader reads no more, and the writer's next writes fail."""
        self._is_closed = True
        if self._connection is not None:
            self._connection.close()

    async def close_async(self) -> None:
        """As `close`, without blocking the loop."""
        await _in_thread(self.close)


class ChannelWriter(_End):
    """The end to write to. Writes block while the reader is behind; OSError (ChannelClosed) once the reader is gone."""

    def send(self, data: bytes | str) -> None:
        """Write bytes, or one text message."""
        connection = self._connect()
        try:
            if isinstance(data, str):
                connection.send(TEXT, data.encode())
                return
            view = memoryview(data)
            for start in range(0, max(len(data), 1), CHUNK):
                connection.send(BINARY, bytes(view[start : start + CHUNK]))
        except OSError as error:
            raise ChannelClosed(f"the reader of this channel has gone: {error}") from None

    async def write(self, data: bytes) -> None:
        """Write bytes."""
        await _in_thread(self.send, data)

    def send_message(self, msg: str) -> None:
        """Write one text message."""
        self.send(msg)

    async def send_message_async(self, msg: str) -> None:
        """As `send_message`, without blocking the loop."""
        await _in_thread(self.send, msg)

    def close(self) -> None:
        """End the stream: the reader gets everything written, then the end. Returns when the engine has it all."""
        if self._is_closed:
            return
        # A writer that never wrote connects too: its reader shall see the end.
        connection = self._connect()
        self._is_closed = True
        connection.finish(CLOSE_TIMEOUT)


class ChannelReader(_End):
    """The end to read from: iterate over it for bytes, over `items()` for bytes and texts in order."""

    def __init__(self, connector: ChannelConnector, ref: StreamChannelRef) -> None:
        super().__init__(connector, ref)
        self._listeners: list[Callable[[str], Any]] = []

    def on_message(self, callback: Callable[[str], Any]) -> None:
        """Call `callback` with each text message, while the bytes are read."""
        self._listeners.append(callback)

    def items(self) -> Iterator[bytes | str]:
        """Yield bytes and texts in the order they were written, until the writer closes."""
        connection = self._connect()
        try:
            while True:
                for opcode, payload in connection.receive(None) or ():
                    if opcode == CLOSE:
                        return
                    if opcode == PING:
                        connection.send(PONG, payload)
                    elif opcode != PONG:
                        yield payload.decode() if opcode == TEXT else payload
        except OSError:
            return  # every way of closing ends the stream (public contract)
        finally:
            self.close()

    def __iter__(self) -> Iterator[bytes]:
        for item in self.items():
            if isinstance(item, bytes):
                yield item
            else:
                for listener in self._listeners:
                    listener(item)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = iter(self)
        while (chunk := await _in_thread(next, chunks, None)) is not None:
            yield chunk

    def read(self) -> bytes:
        """Return all bytes until the end of the stream."""
        return b"".join(self)

    async def read_all(self) -> bytes:
        """As `read`, without blocking the loop."""
        return await _in_thread(self.read)  # type: ignore[no-any-return]


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    import asyncio  # loaded by the loop this runs on

    return await asyncio.to_thread(function, *arguments)


class Channel:
    """Both ends of a new channel, live and as references to pass on. Use each end in one place only."""

    def __init__(self, connector: ChannelConnector, refs: dict[str, dict[str, str]]) -> None:
        self.writer_ref = _ref_from(refs["writer"])
        self.reader_ref = _ref_from(refs["reader"])
        self.writer = ChannelWriter(connector, self.writer_ref)
        self.reader = ChannelReader(connector, self.reader_ref)


def is_channel_ref(value: Any) -> bool:
    """Tell whether a JSON value is a reference to one end of a channel."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("channel_id"), str)
        and isinstance(value.get("access_key"), str)
        and value.get("direction") in ("read", "write")
    )


def _ref_from(value: dict[str, str]) -> StreamChannelRef:
    return StreamChannelRef(value["channel_id"], value["access_key"], value["direction"])


def extract_channel_refs(data: Any, path: str = "") -> list[tuple[str, StreamChannelRef]]:
    """Return every reference inside a JSON value, each with its path like `body.files[0]`."""
    if is_channel_ref(data):
        return [(path, _ref_from(data))]
    if isinstance(data, dict):
        parts = [(f"{path}.{key}" if path else str(key), item) for key, item in data.items()]
    elif isinstance(data, list):
        parts = [(f"{path}[{index}]", item) for index, item in enumerate(data)]
    else:
        return []
    return [found for item_path, item in parts for found in extract_channel_refs(item, item_path)]


def revive(data: Any, connector: ChannelConnector) -> Any:
    """Return a payload in which live readers and writers replace the references."""
    if is_channel_ref(data):
        end = ChannelReader if data["direction"] == "read" else ChannelWriter
        return end(connector, _ref_from(data))
    if isinstance(data, dict):
        return {key: revive(item, connector) for key, item in data.items()}
    if isinstance(data, list):
        return [revive(item, connector) for item in data]
    return data
