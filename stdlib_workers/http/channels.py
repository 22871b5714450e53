"""Ends of channels on the server's own loop: a stream of a request holds no thread, however long it is quiet.

The engine makes the channel and holds back a writer whose reader is slow. Our ends are connections to its unix socket:
a line that asks for the end, a line that gives it, then messages of kind, length and bytes (docs/protocol.md).
"""

from __future__ import annotations

from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import orjson

from iii import InvocationError
from stdlib_workers.http.replies import Refusal
from stdlib_workers.http.requests import Trigger

Reference = dict[str, str]

_TEXT, _BYTES = b"\x01", b"\x02"
_HEAD = 5
# What may lie here unread before the engine's end notices: a few of the SDKs' pieces of 64 KiB.
_BUFFER = 256 * 1024


class ChannelEnd:
    """One open end of a channel."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._head = b""  # of a message whose payload has not come yet

    async def receive(self) -> str | bytes | None:
        """Return the next message, None at the end of the stream, in whatever way it came. May be cancelled."""
        try:
            head = self._head = self._head or await self._reader.readexactly(_HEAD)
            payload = await self._reader.readexactly(int.from_bytes(head[1:], "big"))
        except (IncompleteReadError, OSError):
            return None
        self._head = b""
        return payload.decode() if head[:1] == _TEXT else payload

    async def send(self, chunk: bytes) -> None:
        """Send bytes; waits while the reader is behind. OSError once it has gone."""
        self._writer.write(_BYTES + len(chunk).to_bytes(4, "big") + chunk)
        await self._writer.drain()

    async def close(self) -> None:
        """Close after what was sent."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Channels:
    """Makes channels and opens their ends. `connect(limit=...)` opens a connection to the engine."""

    def __init__(self, trigger: Trigger, connect: Callable[..., Awaitable[tuple[StreamReader, StreamWriter]]]) -> None:
        self._trigger = trigger
        self._connect = connect

    async def make(self) -> tuple[Reference, Reference]:
        """Return the references of a new channel's writer and reader. Refusal when there is none to be had."""
        try:
            made = await self._trigger({"function_id": "engine::channels::create", "payload": {}})
        except InvocationError as error:
            raise Refusal(500, "channel_broken", str(error)) from None
        return made["writer"], made["reader"]

    async def open(self, reference: Reference) -> ChannelEnd:
        """Connect to one end. Refusal when it cannot be had."""
        why = "the engine closed the connection"
        try:
            reader, writer = await self._connect(limit=_BUFFER)
            end = ChannelEnd(reader, writer)
            writer.write(orjson.dumps({"type": "channelopen", **reference}) + b"\n")
            async for line in reader:  # the engine greets every connection before it answers
                answer = orjson.loads(line)
                if answer.get("type") == "channelopened":
                    return end
                if answer.get("type") == "error":
                    why = answer["error"]["message"]
                    break
            await end.close()
        except (OSError, ValueError) as error:
            why = str(error)
        raise Refusal(500, "channel_broken", f"channel {reference['channel_id']} cannot be opened: {why}")


async def write_all(end: ChannelEnd, chunks: AsyncIterator[bytes]) -> None:
    """Write a stream and end it. A reader that has gone wants no more."""
    try:
        async for chunk in chunks:
            await end.send(chunk)
    except OSError:
        return
    finally:
        await end.close()
