"""Ends of channels on the server's own loop: a stream of a request holds no thread, however long it is quiet.

The address and the frames are those of the public contract; the engine makes the channel and holds back a writer
whose reader is slow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from iii import InvocationError
from stdlib_workers.http.calls import Trigger

Reference = dict[str, str]

# How long our end waits for the other's goodbye: a function may have left a file unread.
CLOSE_SECONDS = 1.0


class ChannelBroken(Exception):
    """The engine does not let us at an end of a channel that it has made."""


class Channels:
    """Makes channels and opens their ends. `address` is the engine's WebSocket."""

    def __init__(self, trigger: Trigger, address: str) -> None:
        self._trigger = trigger
        self._address = address.rstrip("/")

    async def make(self) -> tuple[Reference, Reference]:
        """Return the references of a new channel's writer and reader. ChannelBroken when there is none to be had."""
        try:
            made = await self._trigger({"function_id": "engine::channels::create", "payload": {}})
        except InvocationError as error:
            raise ChannelBroken(str(error)) from None
        return made["writer"], made["reader"]

    async def open(self, reference: Reference) -> ClientConnection:
        """Connect to one end."""
        path = f"/ws/channels/{quote(reference['channel_id'], safe='')}"
        query = f"?key={quote(reference['access_key'], safe='')}&dir={reference['direction']}"
        try:
            return await connect(
                self._address + path + query, compression=None, max_size=None, proxy=None, close_timeout=CLOSE_SECONDS
            )
        except (OSError, InvalidHandshake) as error:
            raise ChannelBroken(f"channel {reference['channel_id']} cannot be opened: {error}") from None


async def items_of(end: ClientConnection) -> AsyncIterator[str | bytes]:
    """Yield texts and bytes in the order they were written, until the writer closes, in whatever way."""
    try:
        async for item in end:
            yield item
    except ConnectionClosed:
        return


async def write_all(end: ClientConnection, chunks: AsyncIterator[bytes]) -> None:
    """Write a stream and end it. A reader that has gone wants no more."""
    try:
        async for chunk in chunks:
            await end.send(chunk)
    except ConnectionClosed:
        return
    finally:
        await end.close()


def status_and_headers_from(control: dict[str, Any]) -> tuple[int | None, dict[str, str]]:
    """Return what a control message sets; one that is unknown or wrong sets nothing, as in the contract."""
    status, headers = control.get("status_code"), control.get("headers")
    if control.get("type") == "set_status" and isinstance(status, int) and 200 <= status <= 599:
        return status, {}
    if control.get("type") == "set_headers" and isinstance(headers, dict):
        return None, {name: value for name, value in headers.items() if isinstance(value, str)}
    return None, {}
