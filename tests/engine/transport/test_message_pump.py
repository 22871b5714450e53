"""The message pump with fake connections: what a bug of the engine costs, and which peer."""

from __future__ import annotations

import asyncio
from typing import Any

from iii.engine.routing.events import Event, PeerExpelled
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.engine.routing.tracer import Tracer
from iii.engine.tracing.bounded_queue import BoundedQueue
from iii.engine.tracing.sampling import Sampler, Sampling
from iii.engine.transport.message_pump import MessagePump
from iii.protocol.codec import decode


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


def test_spans_for_which_there_is_no_room_are_counted_and_not_decoded() -> None:
    asyncio.run(_flood())


async def _flood() -> None:
    router = Router()
    tracer = Tracer(
        Sampler(Sampling()),
        router.calls.in_flight,
        mint=lambda _: 1,
        clock=lambda: 0.0,
        on_finished=lambda: None,
        on_state_changed=lambda: None,
    )
    tracer.worker_spans = BoundedQueue(10, 1_000_000)
    decoded: list[bytes] = []

    def decoding(line: bytes) -> Any:
        decoded.append(line)
        return decode(line)

    pump = MessagePump(router, on_event=lambda _: None, on_output=lambda peer, line: None)
    peer = Peer("flood", kind="worker", name="flood")
    peer.decode = decoding
    router.peer_table.attach(peer)
    line = b'{"type":"telemetry","spans":[%b]}' % b",".join([b'{"trace_id":"%032d"}' % 1] * 10_000)
    pump.take(peer, [line] * 3)  # nothing records
    assert decoded == []
    router.trace(tracer)
    pump.take(peer, [line] * 5)
    pump.close()
    assert (decoded, len(tracer.worker_spans), tracer.take_dropped()) == ([line] * 2, 2, 30_000)
