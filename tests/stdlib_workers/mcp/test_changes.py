"""Every client hears of changed tools, however many there are and whoever asks first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from stdlib_workers.mcp.catalog import Catalog
from stdlib_workers.mcp.changes import ToolChanges
from stdlib_workers.mcp.streams import MAX_STREAMS, SESSION_ID, ChangeStreams
from stdlib_workers.mcp.tools import FunctionTool

BOUND = 20
TOLD = b"notifications/tools/list_changed"


class FakeCatalog:
    def __init__(self) -> None:
        self.names: list[str] = []

    async def tools(self) -> dict[str, FunctionTool]:
        return {name: FunctionTool(name, name, "default", "") for name in self.names}


def changes_of(catalog: FakeCatalog) -> ToolChanges:
    return ToolChanges(cast("Catalog", catalog))


class Reader:
    """A client that has opened a stream."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message.get("body"):
            self.pieces.put_nowait(message["body"])


@asynccontextmanager
async def reading(streams: ChangeStreams, *, has_missed: bool = False) -> AsyncIterator[Reader]:
    reader = Reader()
    serving = asyncio.create_task(streams.serve(reader.receive, reader.send, has_missed=has_missed))
    yield reader
    reader.gone.set()
    await serving


def run(use: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(BOUND):
            await use()

    asyncio.run(main())


def test_a_client_is_told_of_a_change_that_another_one_has_read_first() -> None:
    async def use() -> None:
        catalog = FakeCatalog()
        changes = changes_of(catalog)
        async with reading(changes.streams) as first:
            assert TOLD not in await first.pieces.get()
            changes.note(await catalog.tools(), None)
            catalog.names = ["new"]
            changes.note(await catalog.tools(), None)  # the other client lists, before the event of the engine is here
            await changes.look(None)
            assert TOLD in await first.pieces.get()

    run(use)


def test_all_streams_are_told_once_of_each_change() -> None:
    async def use() -> None:
        catalog = FakeCatalog()
        changes = changes_of(catalog)
        async with reading(changes.streams) as first, reading(changes.streams) as second:
            changes.note({}, None)
            for reader in (first, second):
                assert TOLD not in await reader.pieces.get()
            for names in (["a"], ["a", "b"], []):
                catalog.names = names
                await changes.look(None)
                await changes.look(None)
                for reader in (first, second):
                    assert TOLD in await reader.pieces.get()
            assert first.pieces.empty()
            assert second.pieces.empty()

    run(use)


def test_a_stream_of_a_client_that_was_there_before_is_told_at_once() -> None:
    async def use() -> None:
        old, new = (changes_of(FakeCatalog()).streams for _ in range(2))
        session_id = old.new_session_id()
        assert old.new_session_id() != session_id
        assert not old.may_have_missed({SESSION_ID: [session_id]})
        assert not old.may_have_missed({})
        assert old.may_have_missed({SESSION_ID: [session_id], "last-event-id": ["1"]})
        assert new.may_have_missed({SESSION_ID: [session_id]})
        async with reading(new, has_missed=True) as reader:
            assert TOLD in await reader.pieces.get()

    run(use)


def test_streams_are_bounded_and_end_with_their_clients() -> None:
    async def use() -> None:
        streams = changes_of(FakeCatalog()).streams
        readers = [Reader() for _ in range(MAX_STREAMS)]
        serving = [asyncio.create_task(streams.serve(one.receive, one.send, has_missed=False)) for one in readers]
        for one in readers:
            await one.pieces.get()
        assert streams.is_full
        readers[0].gone.set()
        await serving[0]
        assert not streams.is_full
        streams.close()
        await asyncio.gather(*serving)

    run(use)
