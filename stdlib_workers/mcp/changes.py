"""Tells clients that the list of tools has changed, when functions come and go.

A client of the protocol's newest version listens with a request of its own, one of an older version on a stream
(`streams.py`) or, with `iii mcp`, on its connection once it has asked for the list.
"""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.subscriptions import ToolsListChanged

from iii import InvocationError, Logger
from stdlib_workers.mcp.catalog import Catalog
from stdlib_workers.mcp.streams import ChangeStreams
from stdlib_workers.mcp.tools import FunctionTool

# Clients that listen at a time, half of the requests that are served; what waits for one that does not read.
MAX_LISTENING, MAX_WAITING = 32, 16


class ToolChanges:
    """Compares the tools with those that were listed last."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._bus = InMemorySubscriptionBus()
        self.streams = ChangeStreams(self._bus)
        self._log = Logger(service_name="mcp")
        self._listed: dict[str, FunctionTool] | None = None
        self._session: ServerSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.listening = ListenHandler(self._bus, max_subscriptions=MAX_LISTENING, max_buffered_events=MAX_WAITING)

    def note(self, tools: dict[str, FunctionTool], session: ServerSession | None) -> None:
        """Take what a client is shown; on the loop that serves. `session`: its connection, if that lasts.

        A client may see a change before the engine tells of it: the others are told then.
        """
        self._loop = asyncio.get_running_loop()
        self._session = session or self._session
        if self._listed is None:
            self._listed = tools
        else:
            self._take(tools, self._loop)

    async def look(self, _: Any) -> None:
        """Tell the clients if there are other tools now."""
        if self._loop is None:
            return  # no client has asked for the tools
        try:
            tools = await self._catalog.tools()
        except InvocationError as error:
            self._log.warn(f"whether the tools have changed is not known: {error.message}")
            return
        self._take(tools, self._loop)

    def _take(self, tools: dict[str, FunctionTool], loop: asyncio.AbstractEventLoop) -> None:
        if tools != self._listed:
            self._listed = tools
            asyncio.run_coroutine_threadsafe(self._tell(self._session), loop)

    def close(self) -> None:
        """End what clients listen on, in the way that tells them to ask again. Safe on any thread."""
        self.streams.close()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.listening.close)

    async def _tell(self, session: ServerSession | None) -> None:
        await self._bus.publish(ToolsListChanged())
        if session is not None:
            await session.send_tool_list_changed()
