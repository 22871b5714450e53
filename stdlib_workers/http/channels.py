"""Ends of channels on the server's own loop: a stream of a request holds no thread, however long it is quiet.

The engine makes the channel and holds back a writer whose reader is slow. Our ends are connections to its unix socket:
a line that asks for the end, a line that gives it, then messages of kind, length and bytes (docs/protocol.md).
"""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import suppress

import orjson

from iii import InvocationError
from stdlib_workers.http.calls import Trigger

Reference = dict[str, str]

_TEXT, _BYTES = b"\x01", b"\x02"
_HEAD = 5
# What may lie here unread before the engine's end notices: a few of the SDKs' pieces of 64 KiB.
_BUFFER = 256 * 1024


class ChannelBroken(Exception):
    """The engine does not let us at an end of a channel that it has made."""


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
    """Makes channels and opens their ends. `path` is the engine's unix socket."""

    def __init__(self, trigger: Trigger, path: str) -> None:
        self._trigger = trigger
        self._path = path

    async def make(self) -> tuple[Reference, Reference]:
        """Return the references of a new channel's writer and reader. ChannelBroken when there is none to be had."""
        try:
            made = await self._trigger({"function_id": "engine::channels::create", "payload": {}})
        except InvocationError as error:
            raise ChannelBroken(str(error)) from None
        return made["writer"], made["reader"]

    async def open(self, reference: Reference) -> ChannelEnd:
        """Connect to one end. ChannelBroken when it cannot be had."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=_BUFFER)
        except OSError as error:
            raise ChannelBroken(f"channel {reference['channel_id']} cannot be opened: {error}") from None
        end = ChannelEnd(reader, writer)
        writer.write(orjson.dumps({"type": "channelopen", **reference}) + b"\n")
        why = await _refusal(reader)
        if why:
            await end.close()
            raise ChannelBroken(f"channel {reference['channel_id']} cannot be opened: {why}")
        return end


async def _refusal(reader: StreamReader) -> str:
    """Read the engine's lines up to its answer; return why the end is refused, "" if it is not."""
    try:
        while line := await reader.readline():
            answer = orjson.loads(line)
            if answer.get("type") == "channelopened":
                return ""
            if answer.get("type") == "error":
                return str(answer["error"]["message"])
    except (OSError, ValueError) as error:
        return str(error)
    return "the engine closed the connection"


async def write_all(end: ChannelEnd, chunks: AsyncIterator[bytes]) -> None:
    """Write a stream and end it. A reader that has gone wants no more."""
    try:
        async for chunk in chunks:
            await end.send(chunk)
    except OSError:
        return
    finally:
        await end.close()
