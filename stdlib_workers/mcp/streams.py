"""Streams of clients of the protocol's older versions, opened with GET: they say when the list of tools has changed.

No session is kept. The id of a session only says from which run of this worker a client has it: one that comes from
another run may have missed a change, and is told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from secrets import token_hex
from typing import Any

from mcp.server.subscriptions import SubscriptionBus

# Clients with a stream at a time; with those that listen by a request, they leave a quarter of all requests to calls.
MAX_STREAMS = 16
# Seconds until a silent stream shows that it is still there: whatever stands between closes silent connections.
BEAT = 15.0

SESSION_ID = "mcp-session-id"
_STARTED = b"retry: 1000\n\n"
_STILL_HERE = b": still here\n\n"
_CHANGED = b'event: message\nid: 1\ndata: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n'


class ChangeStreams:
    """The open streams; all of it but `close` runs on the loop that serves."""

    def __init__(self, bus: SubscriptionBus) -> None:
        self._bus = bus
        self._run = token_hex(8)
        self._open: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._is_closed = False

    def new_session_id(self) -> str:
        """Return an id for a client that has none."""
        return f"{self._run}-{token_hex(16)}"

    @property
    def is_full(self) -> bool:
        return len(self._open) >= MAX_STREAMS

    def may_have_missed(self, fields: dict[str, list[str]]) -> bool:
        """Whether a client with these headers had a stream before."""
        return "last-event-id" in fields or not fields.get(SESSION_ID, [self._run])[0].startswith(self._run)

    async def serve(
        self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]], *, has_missed: bool
    ) -> None:
        """Answer a GET until the client goes, or `close`. A slow client is told once of all that it has not read."""
        wakes = asyncio.Event()
        gone = asyncio.create_task(_until_gone(receive))
        gone.add_done_callback(lambda _: wakes.set())
        unsubscribe = self._bus.subscribe(lambda _: wakes.set())
        self._open[wakes] = asyncio.get_running_loop()
        try:
            headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            piece = _STARTED + _CHANGED if has_missed else _STARTED
            while not (gone.done() or self._is_closed):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                try:
                    async with asyncio.timeout(BEAT):
                        await wakes.wait()
                    piece = _CHANGED
                except TimeoutError:
                    piece = _STILL_HERE
                wakes.clear()
            await send({"type": "http.response.body", "body": b""})
        finally:
            del self._open[wakes]
            unsubscribe()
            gone.cancel()

    def close(self) -> None:
        """End all streams; their clients open new ones. Safe on any thread."""
        self._is_closed = True
        for wakes, loop in list(self._open.items()):
            loop.call_soon_threadsafe(wakes.set)


async def _until_gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
