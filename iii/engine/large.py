"""Messages that fit a WebSocket but not the pipe they would go to. Pure.

Only a WebSocket can bring one (64 MiB against 16), so the gateway asks here for the few that are that large, and no
other message pays for the question.
"""

from __future__ import annotations

from iii.engine.peer import Peer
from iii.engine.registry import DEFAULT
from iii.engine.router import Router
from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import decode, encode, encode_error
from iii.protocol.lines import MAX_LINE


def fitting(router: Router, peer: Peer, line: bytes) -> bytes | None:
    """Return the line to route: itself where it fits, an error in its place for a result that does not.

    None for a call whose callee cannot take it: its caller has been answered.
    """
    try:
        message = decode(line)
    except RemoteProtocolError:
        return line  # refused where every line is
    if isinstance(message, m.InvokeFunction) and len(line) > _room_of_callee(router, message):
        if message.invocation_id is not None:
            router.calls.send(peer, _too_large(message.invocation_id, message.function_id, len(line)))
        router.calls.counters[ErrorCode.PAYLOAD_TOO_LARGE] += 1
        return None
    if isinstance(message, m.InvocationResult) and len(line) > _room_of_caller(router, message):
        router.calls.counters[ErrorCode.PAYLOAD_TOO_LARGE] += 1
        return _too_large(message.invocation_id, message.function_id, len(line))
    return line


def _room_of_callee(router: Router, message: m.InvokeFunction) -> int:
    function = router.registry.find(message.namespace or DEFAULT, message.function_id)
    if function is None or not function.providers:
        return MAX_LINE
    return min(provider.max_line for provider in function.providers)


def _room_of_caller(router: Router, message: m.InvocationResult) -> int:
    invocation = router.calls.in_flight.get(message.invocation_id)
    return invocation.caller.max_line if invocation and invocation.caller else MAX_LINE


def _too_large(invocation_id: str, function_id: str | None, size: int) -> bytes:
    text = f"a message of {size} bytes is over the {MAX_LINE} of a pipe; send large data through a channel"
    error = encode_error(m.ErrorBody(ErrorCode.PAYLOAD_TOO_LARGE, text))
    return encode(m.InvocationResult(invocation_id, function_id, error=error))
