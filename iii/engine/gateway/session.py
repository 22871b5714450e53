"""What a WebSocket connection leads to: a peer (`/`), or a sink for telemetry (`/otel`).

A peer's messages go to the exchange like any other's; its registrations wait for its namespace, which arrives last.
Made by the gateway; `checkpoint.py` refines it where a listener has rules.

MERGED: Messages that fit a WebSocket but not the pipe they would go to. Pure.

Only a WebSocket can bring one (64 MiB against 16), so the gateway asks here for the few that are that large, and no
other message pays for the question.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.websocket_frames import BINARY, MAX_MESSAGE, one_line
from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import decode, encode, encode_error
from iii.protocol.lines import MAX_LINE
from iii.protocol.messages import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from iii.engine.transport.websocket import Received, WebSocket

# How long registrations wait for the namespace of their connection (public contract).
GRACE = 5.0


class LinkHooks(Protocol):
    """What a link tells about its peer."""

    def spoke(self, peer: Peer) -> None:
        """A batch of the peer's messages was routed."""

    def left(self, peer: Peer) -> None:
        """The peer's connection is gone: detach it, now or when its process is known to be dead."""


class Carrier(Protocol):
    """What a link asks of the gateway."""

    pump: MessagePump
    hooks: LinkHooks
    counters: Counter[str]

    def take_telemetry(self, data: bytes) -> bool:
        """Take a telemetry frame; False if it is none."""

    def cut_if_deaf(self, connection: WebSocket) -> None:
        """Drop a client that has left too much unread."""


class Link:
    """The endpoint of `/`: one peer over one connection."""

    def __init__(self, connection: WebSocket, carrier: Carrier) -> None:
        self._connection = connection
        self._carrier = carrier
        self._pump = carrier.pump
        self._grace: asyncio.TimerHandle | None = None
        self.peer = Peer(
            str(uuid.uuid4()),
            kind="client",
            reattach_token=str(uuid.uuid4()),
            connected_at_ms=int(time.time() * 1000),
            flush=self.flush,
            drain=connection.drain,
            close=connection.close,
            ip_address=connection.client[0],
            max_line=MAX_MESSAGE,
        )
        self.peer.is_serving = False  # its registrations wait for its namespace

    def __repr__(self) -> str:
        return f"<Link {self.peer!r}>"

    def open(self) -> None:
        """The handshake is done: say who it is to us, and wait for who it says it is."""
        self._pump.router.peer_table.attach(self.peer)
        self._grace = asyncio.get_running_loop().call_later(_grace_seconds(), self._settle)
        self._pump.turn()

    def _settle(self) -> None:
        self._grace = None
        self._pump.router.peer_table.settle_namespace(self.peer)
        self._pump.turn()

    def on_messages(self, messages: Received) -> None:
        """Route a batch."""
        lines: list[bytes] = []
        for opcode, data in messages:
            if not data or (opcode == BINARY and self._carrier.take_telemetry(data)):
                continue
            line: bytes | None = one_line(data)
            if len(data) > MAX_LINE:
                line = fitting(self._pump.router, self.peer, one_line(data))
            if line is not None:
                lines.append(line)
        self._route(lines)

    def _route(self, lines: list[bytes]) -> None:
        self._pump.take(self, lines)
        if not self.peer.is_serving:
            self._carrier.hooks.spoke(self.peer)
        self._pump.turn()

    def on_written(self, credit: int) -> None:
        """The kernel took this many bytes of lines."""
        self.peer.written += credit

    def on_closed(self) -> None:
        """The connection is gone."""
        if self._grace is not None:
            self._grace.cancel()
        self._carrier.hooks.left(self.peer)

    def flush(self) -> None:
        """Write the outbox; cut a client that has left too much unread."""
        outbox = self.peer.outbox
        self._connection.send_lines(outbox)
        outbox.clear()
        self._carrier.cut_if_deaf(self._connection)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class TelemetryLink:
    """The endpoint of `/otel`: telemetry frames and nothing else."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def open(self) -> None:
        """Nothing is sent first."""

    def on_messages(self, messages: Received) -> None:
        """Take the telemetry; text is ignored, unknown binary counted."""
        for opcode, data in messages:
            if opcode == BINARY and not self._carrier.take_telemetry(data):
                self._carrier.counters["unknown_telemetry"] += 1

    def on_written(self, credit: int) -> None:
        """We send nothing."""

    def on_closed(self) -> None:
        """Nothing depends on it."""


def _grace_seconds() -> float:
    declared = os.environ.get("III_NAMESPACE_GRACE_MS", "")
    return int(declared) / 1000 if declared.isdigit() else GRACE


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
    function = router.registry.find(message.namespace or DEFAULT_NAMESPACE, message.function_id)
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
