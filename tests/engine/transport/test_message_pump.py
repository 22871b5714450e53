"""The message pump with fake connections: what a bug of the engine costs, and which peer."""

from __future__ import annotations

import asyncio
from typing import Any

from iii.engine.routing.events import Event, PeerExpelled
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.engine.transport.message_pump import MessagePump


def test_an_internal_error_costs_the_peer_that_met_it_and_nobody_else() -> None:
    asyncio.run(_meet_an_internal_error())


async def _meet_an_internal_error() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    router = Router()
    events: list[Event] = []
    pump = MessagePump(router, on_event=events.append, on_output=lambda peer, line: None)
    written: list[bytes] = []

    def fail() -> None:
        raise RuntimeError("a bug")

    bad = Peer("bad", kind="client", name="bad", flush=fail)
    good = Peer("good", kind="client", name="good", flush=lambda: written.extend(good.take_outbox()))
    for peer in (bad, good):
        router.peer_table.attach(peer)
    pump.take(good, [b'{"type":"ping"}'])
    pump.turn()
    pump.close()
    assert written[-1] == b'{"type":"pong"}'
    assert [event.peer for event in events if isinstance(event, PeerExpelled)] == [bad]
    assert isinstance(reported[0]["exception"], RuntimeError)
