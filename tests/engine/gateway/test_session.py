"""Messages that fit a WebSocket but not a pipe: answered, never forwarded."""

from __future__ import annotations

import msgspec

from iii.engine.gateway.session import answer_if_too_large
from iii.engine.routing.peer import MAX_LINE, Peer
from iii.engine.routing.router import Router
from iii.protocol import messages as m
from iii.protocol.codec import encode

WIDE = 4 * MAX_LINE
BIG = msgspec.Raw(b'"' + b"x" * MAX_LINE + b'"')


def joined(router: Router, id: str, max_line: int = MAX_LINE) -> Peer:
    peer = Peer(id, kind="worker", name=id)
    peer.max_line = max_line
    router.peer_table.attach(peer)
    peer.outbox.clear()
    return peer


def provide(router: Router, peer: Peer) -> None:
    router.receive(peer, m.RegisterFunction("f::g"), b"", 0.0)


def call(id: str | None = "i", data: msgspec.Raw = BIG) -> bytes:
    return encode(m.InvokeFunction("f::g", invocation_id=id, data=data))


def test_a_call_goes_on_where_its_callee_can_take_it() -> None:
    router = Router()
    caller, callee = joined(router, "caller", WIDE), joined(router, "callee", WIDE)
    provide(router, callee)
    assert answer_if_too_large(router, caller, call()) == call()


def test_a_call_to_a_pipe_is_answered_and_goes_no_further() -> None:
    router = Router()
    caller, callee = joined(router, "caller", WIDE), joined(router, "callee")
    provide(router, callee)
    assert answer_if_too_large(router, caller, call()) is None
    (answer,) = caller.outbox
    error = msgspec.json.decode(answer)["error"]
    assert error["code"] == "payload_too_large"
    assert str(len(call())) in error["message"]
    assert answer_if_too_large(router, caller, call(id=None)) is None
    assert len(caller.outbox) == 1
    assert router.calls.counters["payload_too_large"] == 2


def test_a_call_to_nobody_who_serves_now_is_answered_too() -> None:
    router = Router()
    caller = joined(router, "caller", WIDE)
    assert answer_if_too_large(router, caller, call()) is None


def test_a_result_for_a_pipe_becomes_an_error_for_the_caller() -> None:
    router = Router()
    caller, callee = joined(router, "caller"), joined(router, "callee", WIDE)
    provide(router, callee)
    small = m.InvokeFunction("f::g", invocation_id="i", data=m.NULL)
    router.receive(caller, small, encode(small), 0.0)
    result = encode(m.InvocationResult("i", "f::g", result=BIG))
    replaced = answer_if_too_large(router, callee, result)
    assert replaced is not None
    assert msgspec.json.decode(replaced)["error"]["code"] == "payload_too_large"
    caller.max_line = WIDE
    assert answer_if_too_large(router, callee, result) == result


def test_what_is_no_call_passes() -> None:
    router = Router()
    peer = joined(router, "peer", WIDE)
    registration = encode(m.RegisterFunction("a::b", metadata=BIG))
    assert answer_if_too_large(router, peer, registration) == registration
    assert answer_if_too_large(router, peer, b"no json") == b"no json"
