"""Items of a streamed result pass from the callee to its caller, and between no other peers."""

from __future__ import annotations

import pytest

from iii.engine.routing.peer import Peer
from tests.support.routing import Net, limits


@pytest.fixture
def net() -> Net:
    return Net(limits=limits(unsent_bytes=200))


def streaming(net: Net) -> tuple[Peer, Peer]:
    """A worker and a caller that streams from it."""
    worker, caller = net.peer("worker"), net.peer("caller")
    net.register(worker, "f")
    net.call(caller, "f", stream=True)
    assert net.one(worker)["stream"] is True
    return worker, caller


def item(net: Net, peer: Peer, id: str = "c1", **fields: object) -> None:
    net.send(peer, "invocationitem", invocation_id=id, **fields)


def test_items_and_progress_reach_the_caller_as_they_are(net: Net) -> None:
    worker, caller = streaming(net)
    item(net, worker, item={"n": 1})
    item(net, worker, progress={"done": 1})
    net.answer(worker, result=None)
    assert [(m["type"], m.get("item"), m.get("progress")) for m in net.got(caller)] == [
        ("invocationitem", {"n": 1}, None),
        ("invocationitem", None, {"done": 1}),
        ("invocationresult", None, None),
    ]


def test_the_wish_to_stream_survives_a_namespace(net: Net) -> None:
    worker, caller = net.peer("worker", namespace="eu"), net.peer("caller")
    net.register(worker, "f")
    net.call(caller, "f", namespace="eu", stream=True)
    assert net.one(worker)["stream"] is True


def test_items_of_a_call_that_is_over_or_of_somebody_else_are_counted_and_dropped(net: Net) -> None:
    worker, caller = streaming(net)
    item(net, net.peer("stranger"), item=1)
    item(net, worker, id="unknown", item=1)
    net.send(caller, "cancel", invocation_id="c1")
    item(net, worker, item=1)
    assert net.got(caller) == []
    assert net.router.calls.counters["unawaited_item"] == 3


def test_a_caller_that_does_not_read_loses_the_call_and_the_worker_is_told(net: Net) -> None:
    worker, caller = streaming(net)
    item(net, worker, item="x" * 300)
    item(net, worker, item="y")
    _, last = net.got(caller)
    assert last["error"]["code"] == "overloaded"
    assert net.one(worker) == {"type": "cancel", "invocation_id": "c1"}
