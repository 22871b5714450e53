"""The exchange keeps one timer for all deadlines, and it never rings too late."""

from __future__ import annotations

import asyncio
import json

from iii.engine.exchange import Exchange
from iii.engine.peer import Peer
from iii.engine.router import Router
from iii.protocol.codec import decode

BOUND = 10.0


def call(id: str, deadline_ms: int) -> bytes:
    return json.dumps(
        {"type": "invokefunction", "invocation_id": id, "function_id": "m::f", "deadline_ms": deadline_ms}
    ).encode()


def test_a_near_deadline_is_kept_behind_a_far_one_that_is_watched_already() -> None:
    async def main() -> list[str]:
        router = Router()
        exchange = Exchange(router, on_event=lambda event: None, on_output=lambda peer, line: None)
        worker, caller = (Peer(name, kind="worker", name=name) for name in ("worker", "caller"))
        for peer in (worker, caller):
            router.roster.attach(peer)
        line = b'{"type":"registerfunction","id":"m::f"}'
        router.receive(worker, decode(line), line, 0.0)
        answered = asyncio.Event()
        caller.flush = answered.set

        class Source:
            peer = caller

        exchange.turn()
        answered.clear()
        exchange.take(Source, [call("far", 60_000)])
        exchange.turn()
        # The first look has sorted the far deadline in once a near one comes.
        while router.calls.deadlines.has_fresh:
            await asyncio.sleep(0)
        caller.outbox.clear()
        exchange.take(Source, [call("near", 1)])
        exchange.turn()
        await asyncio.wait_for(answered.wait(), BOUND)
        exchange.close()
        return [json.loads(line)["invocation_id"] for line in caller.outbox]

    assert asyncio.run(main()) == ["near"]
