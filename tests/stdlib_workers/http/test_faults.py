"""Clients that vanish, do not read or come in crowds: what one of them costs, and that nobody else pays."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from stdlib_workers.http.listening import MAX_LINGERING, STALL_SECONDS, connection_limit
from tests.support.http_site import Served, get
from tests.support.live_project import BOUND
from tests.support.stand_ins import until

TEXT, BINARY_PING = 0x81, 0x89
BIG = "x" * (1 << 20)


def masked(first: int, payload: bytes) -> bytes:
    """A client's short frame with a mask of zeros."""
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


async def test_h08_a_client_that_leaves_has_nothing_left_in_flight() -> None:
    release = asyncio.Event()

    async def wait(_: Any) -> Any:
        await release.wait()
        return {}

    async with Served(wait) as site:
        _, writer = await site.connect()
        writer.write(get(site.listening.address[1]))
        await until(lambda: site.application.in_flight == 1)
        writer.close()
        await until(lambda: not site.connections)
        # It did not ask to be cancelled, so it finishes.
        assert site.application.in_flight == 1
        release.set()
        await until(lambda: site.application.in_flight == 0)


async def test_h11_a_websocket_whose_client_vanishes_is_gone_after_two_pings() -> None:
    events: list[Any] = []

    async def note(payload: Any) -> Any:
        events.append((payload["event"], payload.get("code")))

    async with Served(note, ping_seconds=0.05) as site:
        reader, _ = await site.open_websocket()
        # A ping comes, nothing answers it.
        assert (await asyncio.wait_for(reader.readexactly(1), BOUND))[0] == BINARY_PING
        await until(lambda: not site.connections)
        await until(lambda: len(events) == 2)
    assert [kind for kind, _ in events] == ["connect", "close"]


async def test_h12_a_websocket_client_that_does_not_read_is_held_back_and_cut_off() -> None:
    answered = 0

    async def answer(payload: Any) -> Any:
        nonlocal answered
        if payload["event"] != "message":
            return None
        answered += 1
        return BIG

    async with Served(answer) as site:
        _, writer = await site.open_websocket(receive_buffer=4096)
        writer.write(masked(TEXT, b"more") * 200)
        stuck = next(iter(site.connections))
        await until(lambda: stuck.stalled_since)
        reader, other = await site.open_websocket()
        other.write(masked(TEXT, b"me too"))
        assert len(await asyncio.wait_for(reader.readexactly(len(BIG)), BOUND)) == len(BIG)
        held = stuck.transport.get_write_buffer_size()
        assert held <= 2 * len(BIG) + 65536
        assert answered <= 10
        # Pings of a client that does not read its pongs are not answered, so they cannot pile up either.
        writer.write(masked(0x89, b"p" * 100) * 10_000)
        loop = asyncio.get_running_loop()
        site.listening.expire(loop.time() + STALL_SECONDS - 10)
        assert stuck in site.connections
        assert stuck.transport.get_write_buffer_size() <= held
        site.listening.expire(loop.time() + STALL_SECONDS + 1)
        await until(lambda: stuck not in site.connections)
        assert len(site.connections) == 1


async def test_h12_a_client_that_does_not_take_its_answer_is_cut_off() -> None:
    async def answer(_: Any) -> Any:
        return {"body": BIG * 8}

    async with Served(answer) as site:
        _, writer = await site.connect(receive_buffer=4096)
        writer.write(get(site.listening.address[1]))
        await until(lambda: any(connection.stalled_since for connection in site.connections))
        now = asyncio.get_running_loop().time()
        site.listening.expire(now + STALL_SECONDS - 10)
        assert site.connections
        site.listening.expire(now + STALL_SECONDS + 1)
        await until(lambda: not site.connections)


@pytest.mark.parametrize("crowd", [12, 12 + 2 * MAX_LINGERING])
async def test_h13_connections_are_bounded_and_leave_nothing(crowd: int) -> None:
    async def answer(_: Any) -> Any:
        return {"body": 1}

    descriptors = len(os.listdir("/proc/self/fd"))
    async with Served(answer, connections=8) as site:
        served = [await site.connect() for _ in range(8)]
        await until(lambda: len(site.connections) == 8)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(crowd):
            reader, writer = await site.connect()
            told = await asyncio.wait_for(reader.read(), BOUND)
            assert told.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in told
            writer.close()
            await writer.wait_closed()
        for reader, writer in served:
            writer.write(get(site.listening.address[1]))
            assert (await asyncio.wait_for(reader.readline(), BOUND)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: len(os.listdir("/proc/self/fd")) == before)
        served[0][1].close()
        await until(lambda: len(site.connections) == 7)
        reader, writer = await site.connect()
        writer.write(get(site.listening.address[1]))
        assert (await asyncio.wait_for(reader.readline(), BOUND)).startswith(b"HTTP/1.1 200 ")
    await until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 2)


def test_h13_the_bound_leaves_descriptors_for_everything_else() -> None:
    assert 0 < connection_limit() <= 4096
