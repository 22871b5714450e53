"""H13: crowds of clients at the gateway. Half of them never say who they are; none leaves anything behind."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

from tests.support.harness import BOUND, Engine

UPGRADE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
# How long each stays after its answer, so that they are a crowd.
STAY_SECONDS = 1.0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def visit(port: int, number: int, outcomes: Counter[str]) -> None:
    """Connect, stay and go; every second client is silent."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        outcomes["refused by the kernel"] += 1
        return
    try:
        if number % 2:
            writer.write(UPGRADE.format(port=port).encode())
            answer = await asyncio.wait_for(reader.readline(), BOUND)
            outcomes[answer.decode().strip() or "closed"] += 1
        else:
            outcomes["silent"] += 1
        await asyncio.sleep(STAY_SECONDS)  # how long each of the crowd stays
    except OSError:
        outcomes["reset"] += 1
    finally:
        writer.close()


async def storm(port: int, count: int) -> Counter[str]:
    """Let clients connect all at once; return what became of them."""
    outcomes = Counter[str]()
    await asyncio.gather(*(visit(port, number, outcomes) for number in range(count)))
    return outcomes


def test_h13_a_storm_of_connections_is_capped_and_leaves_nothing() -> None:
    with Engine(own_connections=16) as engine, engine.client() as resident:
        resident.sync()
        before = descriptors()
        outcomes = asyncio.run(storm(engine.port, 200))
        print(dict(outcomes))
        assert outcomes.keys() <= {
            "silent",
            "HTTP/1.1 101 Switching Protocols",
            "HTTP/1.1 503 Service Unavailable",
            "reset",
        }
        assert outcomes["HTTP/1.1 503 Service Unavailable"] > 0
        assert outcomes["HTTP/1.1 101 Switching Protocols"] > 0
        resident.sync()
        # Only the resident and the engine's own functions are left, and so are the descriptors.
        engine.until(lambda: len(engine.router.peer_table.peers) == 2 and descriptors() <= before)
        resident.sync()
