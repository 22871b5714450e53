"""Every form a call may have, and every message that is no call."""

from __future__ import annotations

from typing import Any

import pytest

from iii.engine.routing.events import PeerReady
from iii.engine.routing.peer import Peer
from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol.codec import decode
from tests.support.routing import Net


def provider(net: Net, *functions: str, **fields: Any) -> Peer:
    peer = net.peer("w", **fields)
    net.register(peer, *functions)
    return peer


def test_ping_is_answered_and_ready_is_told(net: Net) -> None:
    peer = net.peer("w")
    net.send(peer, "ping")
    assert net.one(peer) == {"type": "pong"}
    net.send(peer, "ready", files=["/a.py"])
    assert PeerReady(peer, ("/a.py",), {}) in net.router.events
    net.send(peer, "ready", files=["/a.py"], digests={"/a.py": "00"}, missing=["/b.py"])
    assert PeerReady(peer, ("/a.py", "/b.py"), {"/a.py": "00", "/b.py": None}) in net.router.events


def test_messages_that_only_the_engine_sends_are_ignored(net: Net) -> None:
    peer = net.peer("w")
    net.send(peer, "pong")
    net.send(peer, "stop", deadline_ms=1)
    assert net.got(peer) == []


# Forms of a call


def test_a_call_into_a_namespace_reaches_that_one_only(net: Net, caller: Peer) -> None:
    common, eu = provider(net, "f"), net.peer("eu", namespace="eu")
    net.register(eu, "f")
    net.call(caller, "f", namespace="eu", metadata={"m": 1}, traceparent="00", baggage="b")
    assert net.got(common) == []
    assert net.one(eu) == {
        "type": "invokefunction",
        "function_id": "f",
        "invocation_id": "c1",
        "data": None,
        "metadata": {"m": 1},
        "traceparent": "00",
        "baggage": "b,iii.function.id=f",
    }


def test_a_miss_names_the_namespaces_that_have_the_function(net: Net, caller: Peer) -> None:
    net.register(net.peer("eu", namespace="eu"), "f")
    net.call(caller, "f")
    assert net.error(caller)["message"] == (
        "Function f not found in namespace default. It is registered in namespace(s): eu"
    )
    net.call(caller, "f", namespace="us")
    assert "namespace us" in net.error(caller)["message"]


def test_absent_data_reaches_the_callee_as_null_where_the_line_is_written_anew(net: Net, caller: Peer) -> None:
    callee = provider(net, "f")
    net.send(caller, "invokefunction", function_id="f", invocation_id="c1", namespace="default")
    assert net.one(callee)["data"] is None


@pytest.mark.parametrize("fields", [{}, {"invocation_id": "c1", "action": {"type": "void"}}, {"invocation_id": None}])
def test_a_void_call_runs_and_nobody_hears_of_it(net: Net, caller: Peer, fields: dict[str, Any]) -> None:
    callee = provider(net, "f")
    net.send(caller, "invokefunction", function_id="f", data=1, **fields)
    given = net.one(callee)
    assert given["data"] == 1
    assert "action" not in given
    net.answer(callee, given["invocation_id"])
    assert (net.got(caller), caller.outgoing, callee.busy) == ([], 0, 0)


def test_a_void_call_that_nobody_can_run_leaves_a_trace_and_no_answer(net: Net, caller: Peer) -> None:
    net.void(caller, "nothing")
    net.void(caller, "f", namespace=" ")
    assert net.got(caller) == []
    assert net.failures() == [("nothing", True), ("f", True)]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"namespace": ""}, "INVALID_NAMESPACE"),
        ({"action": {"type": 5}}, "invalid_message"),
        ({"action": "void"}, "invalid_message"),
        ({"action": {"type": "fancy"}}, "action_not_found"),
        ({"action": {"type": "enqueue", "queue": "q"}}, "enqueue_error"),
    ],
)
def test_a_call_that_cannot_be_understood_is_answered(
    net: Net, caller: Peer, fields: dict[str, Any], code: str
) -> None:
    provider(net, "f")
    net.call(caller, "f", **fields)
    assert net.error(caller)["code"] == code
    assert (caller.outgoing, net.router.calls.in_flight) == (0, {})


def test_an_enqueue_without_a_queue_worker_says_what_is_missing(net: Net, caller: Peer) -> None:
    net.call(caller, "f", action={"type": "enqueue", "queue": "q"})
    assert "engine::queue::enqueue" in net.error(caller)["message"]


def test_a_null_action_is_no_action(net: Net, caller: Peer) -> None:
    callee = provider(net, "f")
    net.call(caller, "f", action=None)
    assert net.calls_of(callee) == ["c1"]


# Actions


ENQUEUE = {"type": "enqueue", "queue": "bulk"}


def test_enqueue_hands_the_job_over_and_answers_with_its_receipt(net: Net, caller: Peer) -> None:
    queue = provider(net, "engine::queue::enqueue")
    net.call(caller, "jobs::run", data={"n": 1}, action=ENQUEUE, metadata={"not": "forwarded"}, namespace="shop")
    assert net.one(queue) == {
        "type": "invokefunction",
        "function_id": "engine::queue::enqueue",
        "invocation_id": "c1",
        "data": {
            "function_id": "jobs::run",
            "data": {"n": 1},
            "messageReceiptId": "minted1",
            "traceparent": None,
            "baggage": None,
            "queue": "bulk",
            "namespace": "shop",
        },
    }
    net.answer(queue, result={"whatever": 1})
    assert net.one(caller)["result"] == {"messageReceiptId": "minted1"}


def test_an_enqueue_keeps_its_options_when_it_waits_for_the_queue_to_start(net: Net, caller: Peer) -> None:
    net.router.calls.starting.add("queue")
    net.call(caller, "jobs::run", action={**ENQUEUE, "key": "k", "delay_ms": 5}, metadata={"user": 1})
    queue = provider(net, "engine::queue::enqueue")
    data = net.one(queue)["data"]
    assert (data["queue"], data["key"], data["delay_ms"], data["metadata"]) == ("bulk", "k", 5, {"user": 1})
    # Providers refuse fields that they do not know.
    assert not data.keys() & {"type", "namespace"}
    # Of a repeated key only the queue knows which job that is.
    net.answer(queue, result={"messageReceiptId": "of the first job"})
    assert net.one(caller)["result"] == {"messageReceiptId": "of the first job"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"code": "full", "message": "no room", "details": {"n": 1}}, "full: no room"),
        ({"code": "enqueue_error", "message": "queue_not_found: there is none"}, "queue_not_found: there is none"),
        ("just words", '"just words"'),
        ({"code": 7}, '{"code":7}'),
    ],
)
def test_an_enqueue_error_has_one_code_whatever_the_provider_answers(
    net: Net, caller: Peer, error: Any, message: str
) -> None:
    queue = provider(net, "engine::queue::enqueue")
    net.call(caller, "jobs::run", action=ENQUEUE)
    net.answer(queue, error=error)
    error = net.error(caller)
    assert (error["code"], error["message"]) == ("enqueue_error", message)
    assert (caller.outgoing, queue.busy, net.router.calls.in_flight) == (0, 0, {})


def test_a_null_error_is_no_error(net: Net, caller: Peer) -> None:
    queue = provider(net, "engine::queue::enqueue")
    net.call(caller, "jobs::run", action=ENQUEUE)
    net.answer(queue, result=None, error=None)
    assert net.one(caller)["result"] == {"messageReceiptId": "minted1"}


def test_enqueue_waits_for_a_queue_worker_that_starts(net: Net, caller: Peer) -> None:
    net.router.peer_table.expect("queue")
    net.call(caller, "jobs::run", action=ENQUEUE)
    assert net.calls_of(net.serving("queue", "engine::queue::enqueue")) == ["c1"]


def test_a_provided_action_gets_the_whole_call_and_its_result_goes_to_the_caller(net: Net, caller: Peer) -> None:
    batcher = provider(net, "batch::run")
    net.send(batcher, "registeraction", id="batch", function_id="batch::run")
    net.call(caller, "jobs::run", data=[1], action={"type": "batch", "size": 3}, metadata={"m": 1})
    assert net.one(batcher)["data"] == {
        "function_id": "jobs::run",
        "data": [1],
        "messageReceiptId": "minted1",
        "traceparent": None,
        "baggage": None,
        "action": {"type": "batch", "size": 3},
        "metadata": {"m": 1},
    }
    net.answer(batcher, result={"took": 1})
    assert net.one(caller)["result"] == {"took": 1}


# Lines that cannot be decoded


def refuse(net: Net, peer: Peer, line: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(line)
    net.router.calls.refuse(peer, caught.value)


def test_a_broken_call_is_answered_to_its_caller(net: Net, caller: Peer) -> None:
    refuse(net, caller, b'{"type":"invokefunction","invocation_id":"c9","function_id":"f","data":NaN}')
    answer = net.one(caller)
    assert (answer["invocation_id"], answer["error"]["code"]) == ("c9", "invalid_json")
    assert answer["error"]["details"]["offset"] > 0


def test_a_broken_result_ends_its_call(net: Net, caller: Peer) -> None:
    callee = provider(net, "f")
    net.call(caller, "f")
    net.got(callee)
    refuse(net, callee, b'{"type":"invocationresult","invocation_id":"c1","result":"\\ud800"}')
    assert net.error(caller)["code"] == "invalid_json"
    assert (callee.busy, net.router.calls.in_flight) == (0, {})


def test_a_broken_line_that_names_the_call_of_another_ends_nothing(net: Net, caller: Peer) -> None:
    callee, stranger = provider(net, "f"), net.peer("stranger")
    net.call(caller, "f")
    refuse(net, stranger, b'{"type":"invocationresult","invocation_id":"c1","result":NaN}')
    assert (net.got(caller), net.got(stranger)) == ([], [])
    assert net.notices() == [ErrorCode.INVALID_JSON]
    net.answer(callee)
    assert net.one(caller)["result"] == "ok"


def test_a_broken_line_without_an_id_is_noted(net: Net, caller: Peer) -> None:
    refuse(net, caller, b'{"type":"ready","files":5}')
    assert net.notices() == [ErrorCode.INVALID_MESSAGE]
    assert net.router.calls.counters[ErrorCode.INVALID_MESSAGE] == 1
