"""Ends of channels over a socket of the same machine, without an engine around them."""

from __future__ import annotations

import asyncio
import socket

from iii.engine.channels.channel import Channels
from iii.engine.channels.unix_endpoint import ChannelAcceptor
from iii.engine.transport.poller import Poller
from iii.protocol.frames import TEXT, ChannelFrameSplitter, frame
from iii.protocol.messages import ChannelOpen

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
