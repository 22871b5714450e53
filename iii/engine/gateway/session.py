"""The sessions of WebSocket connections: a peer (`/`), telemetry (`/otel`), one end of a channel (`/ws/channels/{id}`).

A peer's messages go to the message pump like those of a worker on pipes. Two things are special: the peer's
registrations wait for its namespace, which an SDK sends last, and a message may be larger (64 MiB) than the pipe of its
receiver allows (16 MiB). `rbac_session.py` adds what a listener with rules checks.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from iii.engine.channels.channel import Channel, Direction
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.engine.security.peer_uid import is_held_by
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.session import Received, Session
from iii.engine.transport.websocket_frames import without_newlines
from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import decode, encode, encode_error
from iii.protocol.frames import BINARY, MAX_MESSAGE
from iii.protocol.lines import MAX_LINE

if TYPE_CHECKING:
    from iii.engine.transport.websocket import WebSocketConnection

# Unsent bytes at which a channel's reader counts as congested: a few of the SDKs' frames of 64 KiB.
CONGESTED = 1024 * 1024


class SessionHost(Protocol):
    """The gateway as its sessions see it."""

    pump: MessagePump
    counters: Counter[str]
    namespace_timeout: float

    def on_routed(self, peer: Peer) -> None: ...

    def on_left(self, peer: Peer) -> None: ...

    def take_telemetry(self, data: bytes) -> bool:
        """Pass a telemetry frame on; return False if it is none."""

    def refuse_telemetry(self, data: bytes) -> bool:
        """Drop a telemetry frame of a session, and count it; return False if it is none."""

    def abort_if_slow(self, connection: WebSocketConnection) -> None:
        """Drop a client that has left too much unread, after this turn."""


class PeerSession(Session):
    """The session of `/`: one peer over one connection."""

    def __init__(self, connection: WebSocketConnection, host: SessionHost) -> None:
        self._connection = connection
        self._host = host
        self._pump = host.pump
        self._namespace_timer: asyncio.TimerHandle | None = None
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
            is_held_by=lambda pid: is_held_by(pid, connection.client, connection.server),
        )
        self.peer.is_serving = False  # its registrations wait for its namespace

    def open(self) -> None:
        """Attach the peer after the handshake, and wait for its namespace."""
        declared = os.environ.get("III_NAMESPACE_GRACE_MS", "")
        timeout = int(declared) / 1000 if declared.isdigit() else self._host.namespace_timeout
        self._pump.router.peer_table.attach(self.peer)
        self._namespace_timer = asyncio.get_running_loop().call_later(timeout, self._settle)
        self._pump.turn()

    def _settle(self) -> None:
        """Serve the peer in the default namespace: it has named none in time."""
        self._namespace_timer = None
        self._pump.router.peer_table.settle_namespace(self.peer)
        self._pump.turn()

    def on_messages(self, messages: Received) -> None:
        lines: list[bytes] = []
        for opcode, data in messages:
            if not data or (opcode == BINARY and self._take_telemetry(data)):
                continue
            line = without_newlines(data)
            if len(data) <= MAX_LINE:
                lines.append(line)
            elif (replaced := answer_if_too_large(self._pump.router, self.peer, line)) is not None:
                lines.append(replaced)
        self._route(lines)

    def _take_telemetry(self, data: bytes) -> bool:
        return self._host.take_telemetry(data)

    def _route(self, lines: list[bytes]) -> None:
        self._pump.take(self.peer, lines)
        if not self.peer.is_serving:
            self._host.on_routed(self.peer)
        self._pump.turn()

    def on_written(self, credit: int) -> None:
        self.peer.written += credit

    def on_closed(self) -> None:
        if self._namespace_timer is not None:
            self._namespace_timer.cancel()
        self._host.on_left(self.peer)
        # The peer refers to this session no more, which refers to the connection and all that it holds.
        self.peer.disconnect()
        self.peer.flush = self.peer.outbox.clear

    def flush(self) -> None:
        outbox = self.peer.outbox
        self._connection.send_lines(outbox)
        outbox.clear()
        self._host.abort_if_slow(self._connection)


class TelemetrySession(Session):
    """The session of `/otel`: telemetry frames and nothing else. `take` takes a frame, and says False if it is none."""

    def __init__(self, host: SessionHost, take: Callable[[bytes], bool]) -> None:
        self._host = host
        self._take = take

    def on_messages(self, messages: Received) -> None:
        """Take telemetry frames; other binary messages are counted, text is ignored."""
        for opcode, data in messages:
            if opcode == BINARY and not self._take(data):
                self._host.counters["unknown_telemetry"] += 1


class ChannelSession(Session):
    """The session of `/ws/channels/{id}`: a `ChannelEnd`."""

    def __init__(self, connection: WebSocketConnection, channel: Channel, direction: Direction) -> None:
        self._connection = connection
        self._channel = channel
        self._direction: Direction = direction
        connection.may_be_silent = True  # a reader may be slow, and a paused writer's pongs are not read
        self.deliver = connection.send
        self.finish = connection.close
        self.pause = connection.pause
        self.resume = connection.resume

    @property
    def is_congested(self) -> bool:
        return self._connection.unsent_bytes > CONGESTED

    def open(self) -> None:
        """Take the channel's end after the handshake; close if another connection has it."""
        if not self._channel.take(self._direction, self):
            self._connection.close()

    def on_messages(self, messages: Received) -> None:
        """Write a batch to the channel; what a reader sends is ignored."""
        if self._direction == "write":
            for opcode, data in messages:
                self._channel.write(opcode, data)

    def on_written(self, credit: int) -> None:  # noqa: ARG002 - the signature of a session
        """The reader's socket took something: there may be room for more."""
        self._channel.pump()

    def on_closed(self) -> None:
        self._channel.leave(self._direction)


def answer_if_too_large(router: Router, sender: Peer, line: bytes) -> bytes | None:
    """Return the line to route for a line that is over the limit of pipes.

    That is the line itself if its receiver takes it, and an error for a result that is too large for its caller. For a
    call that is too large for its callee, answer the caller and return None.
    """
    try:
        message = decode(line)
    except RemoteProtocolError:
        return line  # the message pump rejects it, as any other line
    if isinstance(message, m.InvokeFunction):
        function = router.registry.find(message.namespace or m.DEFAULT_NAMESPACE, message.function_id)
        providers = function.providers if function is not None else []
        max_line = min((provider.max_line for provider in providers), default=MAX_LINE)
    elif isinstance(message, m.InvocationResult):
        invocation = router.calls.in_flight.get(message.invocation_id)
        max_line = invocation.caller.max_line if invocation and invocation.caller else MAX_LINE
    else:
        return line
    if len(line) <= max_line:
        return line
    router.calls.counters[ErrorCode.PAYLOAD_TOO_LARGE] += 1
    if message.invocation_id is None:
        return None
    text = f"a message of {len(line)} bytes is over the {MAX_LINE} of a pipe; send large data through a channel"
    body = encode_error(m.ErrorBody(ErrorCode.PAYLOAD_TOO_LARGE, text))
    error = encode(m.InvocationResult(message.invocation_id, message.function_id, error=body))
    if isinstance(message, m.InvocationResult):
        return error
    router.calls.send(sender, error)
    return None
