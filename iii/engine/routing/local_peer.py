"""Reads the outboxes of peers that live in the engine itself, and refuses lines that cannot be decoded. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iii.engine.routing.calls import Calls
from iii.engine.routing.events import Notice
from iii.engine.routing.peer import Peer
from iii.errors import ProtocolError, RemoteProtocolError
from iii.protocol.codec import decode, encode, encode_error
from iii.protocol.messages import ErrorBody, InvocationResult


def take_messages(peer: Peer, calls: Calls) -> Iterator[Any]:
    """Yield the messages in the outbox of a peer of the engine; its lines count as written.

    A line of a trusted worker is decoded here for the first time. If it cannot be, a call is answered with the error,
    and a result becomes one.
    """
    for line in peer.take_outbox():
        try:
            message = decode(line)
        except RemoteProtocolError as error:
            refuse(calls, peer, error)
        else:
            yield message


def refuse(calls: Calls, peer: Peer, error: ProtocolError) -> None:
    """A line from or for `peer` could not be decoded: answer where its id shows, report the error otherwise."""
    calls.counters[error.code] += 1
    invocation = calls.in_flight.get(error.invocation_id or "")
    body = ErrorBody(error.code, error.message, details={"offset": error.offset})
    if invocation is not None and invocation.callee is peer:
        result = InvocationResult(invocation.id, invocation.function.id, error=encode_error(body))
        (calls.observer or calls).settle(peer, result, encode(result))
    elif error.invocation_id is not None and invocation is None:
        calls.send(peer, encode(InvocationResult(error.invocation_id, error=encode_error(body))))
    else:
        calls.events.append(Notice(peer.name, f"refused a message: {error.message}", error.code))
