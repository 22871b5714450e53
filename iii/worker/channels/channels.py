"""Channels: streams of bytes and texts beside the calls, for what is too large or too long for one payload.

`iii.helpers.create_channel` asks the engine for one; a reference to an end travels inside a payload and arrives as a
live reader or writer. Each end is a connection of its own, opened when it is first used: to the engine's unix socket
for supervised workers, a WebSocket for others. The kernel and the engine hold back a writer whose reader is slow.
Blocking calls for threads, `await` for event loops. Loaded by whoever meets a reference.
"""

from __future__ import annotations

import os
from threading import Lock
from urllib.parse import quote

from iii.errors import IIIError
from iii.protocol.websocket_frames import BINARY, CLOSE, PING, PONG, TEXT
from iii.worker.channels.unix_socket import LocalWire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any

    from iii.worker.transport.websocket import Wire

# Larger writes are cut (public contract), so that a reader gets its first bytes early.
CHUNK = 64 * 1024
# A closing writer waits for the engine to have read everything; after this nobody will.
LINGER_SECONDS = 330.0
DIRECTIONS = ("read", "write")


class StreamChannelRef:
    """What stands for one end of a channel in a payload: `channel_id`, `access_key`, `direction` (read or write)."""

    def __init__(self, channel_id: str, access_key: str, direction: str) -> None:
        self.channel_id = channel_id
        self.access_key = access_key
        self.direction = direction

    def model_dump(self, **_: Any) -> dict[str, str]:
        """Return the JSON form."""
        return {"channel_id": self.channel_id, "access_key": self.access_key, "direction": self.direction}


class Door:
    """Where this process opens its ends: the engine's address and the headers of a WebSocket handshake."""

    def __init__(self, address: str, headers: dict[str, str]) -> None:
        self._address = address
        self._headers = headers

    def open(self, ref: StreamChannelRef) -> Wire | LocalWire:
        """Connect to one end. OSError when the channel is gone, IIIError when there is no engine."""
        if self._address.startswith("ws"):
            return self._open_websocket(ref)
        path = os.environ.get("III_SOCKET", "")
        if not path:
            raise IIIError("channels need an engine: run this worker under `iii dev`, or with III_URL=ws://...")
        return LocalWire(path, ref.model_dump())

    def _open_websocket(self, ref: StreamChannelRef) -> Wire:
        from iii.worker.transport.websocket import Wire  # not for supervised workers

        address = self._address
        base, _, query = address.partition("?")
        fields = f"key={quote(ref.access_key, safe='')}&dir={ref.direction}"
        path = f"{base.rstrip('/')}/ws/channels/{quote(ref.channel_id, safe='')}"
        return Wire(f"{path}?{query}&{fields}" if query else f"{path}?{fields}", self._headers)


class _End:
    """One end, connected at its first use."""

    def __init__(self, door: Door, ref: StreamChannelRef) -> None:
        self._door = door
        self.ref = ref
        self._wire: Wire | LocalWire | None = None
        self._opening = Lock()
        self._is_closed = False

    def model_dump(self, **_: Any) -> dict[str, str]:
        """Return the reference: a live end inside a payload is passed on."""
        return self.ref.model_dump()

    def _open(self) -> Wire | LocalWire:
        with self._opening:
            if self._is_closed:
                raise ValueError("this end of the channel is closed")
            self._wire = self._wire or self._door.open(self.ref)
            return self._wire


class ChannelWriter(_End):
    """The end that is written to. Writes block while the reader is behind; OSError once the reader is gone."""

    def send(self, data: bytes | str) -> None:
        """Write bytes, or one text message."""
        wire = self._open()
        if isinstance(data, str):
            wire.send(TEXT, data.encode())
            return
        view = memoryview(data)
        for start in range(0, max(len(data), 1), CHUNK):
            wire.send(BINARY, bytes(view[start : start + CHUNK]))

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
        # Also one that never wrote: its reader shall see the end.
        wire = self._open()
        self._is_closed = True
        wire.finish(LINGER_SECONDS)

    async def close_async(self) -> None:
        """As `close`, without blocking the loop."""
        await _in_thread(self.close)


class ChannelReader(_End):
    """The end that is read from: iterate over it for bytes, over `items()` for bytes and texts in order."""

    def __init__(self, door: Door, ref: StreamChannelRef) -> None:
        super().__init__(door, ref)
        self._listeners: list[Callable[[str], Any]] = []

    def on_message(self, callback: Callable[[str], Any]) -> None:
        """Call `callback` with each text message, while the bytes are read."""
        self._listeners.append(callback)

    def items(self) -> Iterator[bytes | str]:
        """Yield bytes and texts in the order they were written, until the writer closes."""
        wire = self._open()
        try:
            while True:
                for opcode, payload in wire.receive(None) or ():
                    if opcode == CLOSE:
                        return
                    if opcode == PING:
                        wire.send(PONG, payload)
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
                self._tell(item)

    def _tell(self, text: str) -> None:
        for listener in self._listeners:
            listener(text)

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

    def close(self) -> None:
        """Read no more: the writer's next writes fail."""
        self._is_closed = True
        if self._wire is not None:
            self._wire.close()

    async def close_async(self) -> None:
        """As `close`, for code on an event loop."""
        await _in_thread(self.close)


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    import asyncio  # loaded by whoever awaits this

    return await asyncio.to_thread(function, *arguments)


class Channel:
    """Both ends of a new channel, live and as references to pass on. Use each end in one place only."""

    def __init__(self, door: Door, made: dict[str, dict[str, str]]) -> None:
        self.writer_ref = _ref_from(made["writer"])
        self.reader_ref = _ref_from(made["reader"])
        self.writer = ChannelWriter(door, self.writer_ref)
        self.reader = ChannelReader(door, self.reader_ref)


def is_channel_ref(value: Any) -> bool:
    """Tell whether a JSON value is a reference to one end of a channel."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("channel_id"), str)
        and isinstance(value.get("access_key"), str)
        and value.get("direction") in DIRECTIONS
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
    return [found for place, item in parts for found in extract_channel_refs(item, place)]


def revive(data: Any, door: Door) -> Any:
    """Return a payload with every reference in it made a live reader or writer."""
    if is_channel_ref(data):
        kind = ChannelReader if data["direction"] == "read" else ChannelWriter
        return kind(door, _ref_from(data))
    if isinstance(data, dict):
        return {key: revive(item, door) for key, item in data.items()}
    if isinstance(data, list):
        return [revive(item, door) for item in data]
    return data
