"""Ends of channels over a socket of the same machine, without an engine around them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from iii.engine.channels.channel import Channels
from iii.engine.channels.unix_endpoint import ChannelAcceptor
from iii.engine.routing.budget import Budget
from iii.engine.transport.poller import Poller
from iii.protocol.frames import TEXT, ChannelFrameSplitter, frame
from iii.protocol.messages import ChannelOpen
from tests.support.stand_ins import until

BOUND = 20.0


async def answer_of(acceptor: ChannelAcceptor, request: ChannelOpen, sent: bytes = b"") -> tuple[bytes, socket.socket]:
    """Open an end for one half of a pair that has sent something already; return the first line, and our half."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    if sent:
        ours.send(sent)
    acceptor.open(theirs.detach(), request)
    loop = asyncio.get_running_loop()
    line = b""
    while not line.endswith(b"\n"):
        line += await asyncio.wait_for(loop.sock_recv(ours, 1), BOUND)
    return line, ours


def test_a_second_writer_is_rejected_and_the_first_one_keeps_its_end() -> None:
    async def main() -> None:
        channels = Channels(iter(("id", "key")).__next__, lambda: 0.0)
        acceptor = ChannelAcceptor(channels, Poller(lambda: None))
        channels.create()
        reader = ChannelOpen("id", "key", "read")
        writer = ChannelOpen("id", "key", "write")
        answer, reading = await answer_of(acceptor, reader)
        assert b"channelopened" in answer
        answer, writing = await answer_of(acceptor, writer)
        assert b"channelopened" in answer
        answer, rejected = await answer_of(acceptor, writer, sent=frame(TEXT, b"forged"))
        assert b"somebody has the write end" in answer
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(writing, frame(TEXT, b"ours"))
        splitter = ChannelFrameSplitter()
        messages: list[tuple[int, bytes]] = []
        while not messages:
            messages += splitter.feed(await asyncio.wait_for(loop.sock_recv(reading, 4096), BOUND))
        assert messages == [(TEXT, b"ours")]
        acceptor.close()
        for half in (reading, writing, rejected):
            half.close()

    asyncio.run(main())


def test_an_unfinished_message_is_held_by_the_engines_memory_and_freed_when_it_ends() -> None:
    async def main() -> None:
        budget = Budget(4_000_000)
        channels = Channels(iter(("id", "key")).__next__, lambda: 0.0, budget)
        acceptor = ChannelAcceptor(channels, Poller(lambda: None))
        channels.create()
        empty = budget.used
        _, reading = await answer_of(acceptor, ChannelOpen("id", "key", "read"))
        _, writing = await answer_of(acceptor, ChannelOpen("id", "key", "write"))
        loop = asyncio.get_running_loop()
        message = frame(TEXT, b"x" * 3_000_000)
        await loop.sock_sendall(writing, message[:2_000_000])
        await until(lambda: budget.used - empty == 2_000_000)
        sending = loop.create_task(loop.sock_sendall(writing, message[2_000_000:]))
        received = 0
        while received < len(message):
            received += len(await asyncio.wait_for(loop.sock_recv(reading, 1 << 20), BOUND))
        await sending
        await until(lambda: budget.used == empty)
        acceptor.close()
        for half in (reading, writing):
            half.close()

    asyncio.run(main())


def test_a_writer_whose_unfinished_message_is_beyond_the_engines_memory_loses_its_end() -> None:
    async def main() -> None:
        budget = Budget(1_000_000)
        channels = Channels(iter(("id", "key")).__next__, lambda: 0.0, budget)
        acceptor = ChannelAcceptor(channels, Poller(lambda: None))
        channels.create()
        empty = budget.used
        _, reading = await answer_of(acceptor, ChannelOpen("id", "key", "read"))
        _, writing = await answer_of(acceptor, ChannelOpen("id", "key", "write"))
        loop = asyncio.get_running_loop()
        with pytest.raises(OSError, match=r"pipe|reset"):
            await asyncio.wait_for(loop.sock_sendall(writing, frame(TEXT, b"x" * 9_000_000)), BOUND)
        assert await asyncio.wait_for(loop.sock_recv(reading, 4096), BOUND) == b""
        await until(lambda: budget.used < empty)
        acceptor.close()
        assert budget.used == 0
        for half in (reading, writing):
            half.close()

    asyncio.run(main())
