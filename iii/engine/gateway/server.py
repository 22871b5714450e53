"""The WebSocket listener: official SDKs, browsers and other engines connect here as peers.

Owns the connections of one listener from accept to close: admission, limits, the three paths, the namespace window,
signs of life. A peer's messages go to the exchange like any other's; what a worker is to the supervisor is the
switchboard's. Made and closed by the composition root.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from iii.engine.channels.channel import Channels
from iii.engine.channels.websocket_endpoint import ChannelLink
from iii.engine.gateway.authentication import Terms, Visitor
from iii.engine.gateway.rbac_session import CheckedLink, CheckedTelemetryLink
from iii.engine.gateway.session import Link, LinkHooks, TelemetryLink
from iii.engine.security import peer_uid
from iii.engine.security.admission import Knock, Policy, judge, loopback_hosts
from iii.engine.security.auth_throttle import Throttle
from iii.engine.transport.accept import TcpAcceptor
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.tcp_address import Address
from iii.engine.transport.websocket_frames import MAX_MESSAGE

if TYPE_CHECKING:
    from websockets.http11 import Request

    from iii.engine.transport.websocket import WebSocket

TELEMETRY = (b"OTLP", b"MTRC", b"LOGS")
_MAIN, _TELEMETRY_ONLY, _CHANNELS = "/", "/otel", "/ws/channels/"
_REASONS = {400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 421: "Misdirected request"}


class Limits(Struct, frozen=True):
    """What a connection may cost. Seconds, bytes, connections."""

    connections: int = 512  # every official worker holds two
    handshake: float = 5.0  # it is one packet; whoever needs longer wants to keep a descriptor busy
    ping_after: float = 15.0  # of silence
    gone_after: float = 35.0  # of silence, pings included: with the sweep, gone within 40 s
    backlog: int = 32 * 1024 * 1024  # answers always pass, so who does not read must be cut before it fills our memory
    stall: float = 5.0  # how long a backlog over its limit may stand still
    close: float = 60.0  # how long a closing connection may take to accept what it was sent
    sweep: float = 2.5  # between two looks at all this


class Listen(Struct, frozen=True):
    """Where a gateway listens and whom it lets in.

    `origins` are web pages that may connect, as `scheme://host:port`.
    """

    address: Address
    token: str | None
    origins: tuple[str, ...] = ()
    terms: Terms | None = None
    throttle: Throttle = field(default_factory=Throttle)


class Gateway:
    """One listener and all its connections."""

    def __init__(
        self, pump: MessagePump, hooks: LinkHooks, channels: Channels, listen: Listen, limits: Limits | None = None
    ) -> None:
        self.pump = pump
        self.hooks = hooks
        self.limits = limits or Limits()
        self.channels = channels
        self.counters: Counter[str] = Counter()
        self.on_telemetry: Callable[[str, bytes], None] = _drop
        self.acceptor = TcpAcceptor(listen.address, self.accept)
        self._terms = listen.terms
        self._throttle = listen.throttle
        self._policy = Policy(
            hosts=loopback_hosts(listen.address.port) if listen.address.is_loopback else None,
            origins=listen.origins,
            token=listen.token,
        )
        self.connections: set[WebSocket] = set()
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(self.limits.sweep, self._sweep)

    def __repr__(self) -> str:
        return f"<Gateway {self.url} {len(self.connections)} connections>"

    @property
    def url(self) -> str:
        """The address for programs on this machine."""
        return f"ws://{self.acceptor.address}"

    def accept(self, connected: socket.socket) -> None:
        """Take over an accepted socket."""
        # The library is a tenth of what an engine's start would import, and most projects' workers speak over pipes.
        from iii.engine.transport.websocket import WebSocket

        if len(self.connections) >= self.limits.connections:
            self.counters["over_limit"] += 1
            _say_busy(connected)
            return
        try:
            self.connections.add(WebSocket(connected, self))
        except OSError:
            connected.close()  # the client left before we looked

    # The handshake

    def on_request(self, connection: WebSocket, request: Request) -> None:
        """Admit the connection or answer why not; admitted, it gets the endpoint of its path."""
        address = urlsplit(request.path)
        headers = request.headers
        knock = Knock(
            hosts=headers.get_all("Host"),
            origins=headers.get_all("Origin"),
            authorizations=headers.get_all("Authorization"),
            subprotocols=_words(headers.get_all("Sec-WebSocket-Protocol")),
            query=address.query,
            is_same_user=peer_uid.is_same_user(connection.client, connection.server),
        )
        verdict = judge(self._policy_of(address.path), knock)
        if not request.path.startswith("/"):
            self._refuse(connection, 400)  # the absolute form is for proxies
        elif verdict.status == 401:
            self._turn_away(connection)
        elif verdict.status != 101:
            self._refuse(connection, verdict.status)
        else:
            self._lead(connection, request, verdict.subprotocol)

    def _policy_of(self, path: str) -> Policy:
        """A channel's key is its credential, and the SDKs show no other there; pages stay out all the same."""
        return replace(self._policy, token=None) if path.startswith(_CHANNELS) else self._policy

    def _lead(self, connection: WebSocket, request: Request, subprotocol: str | None) -> None:
        """Give an admitted connection the endpoint of its path."""
        address = urlsplit(request.path)
        if address.path.startswith(_CHANNELS):
            self._lead_to_channel(connection, request, subprotocol)
        elif address.path in (_MAIN, _TELEMETRY_ONLY):
            link = self._link_for(connection, request, is_peer=address.path == _MAIN)
            if connection.accept(request, link, subprotocol):
                link.open()
        else:
            self._refuse(connection, 404)

    def _link_for(self, connection: WebSocket, request: Request, *, is_peer: bool) -> Link | TelemetryLink:
        if self._terms is None:
            return Link(connection, self) if is_peer else TelemetryLink(self)
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        visitor = Visitor(headers, query, connection.client[0])
        checked = CheckedLink if is_peer else CheckedTelemetryLink
        return checked(connection, self, self._terms, visitor)

    def _lead_to_channel(self, connection: WebSocket, request: Request, subprotocol: str | None) -> None:
        address = urlsplit(request.path)
        query = parse_qs(address.query)
        key, direction = query.get("key", [""])[0], query.get("dir", [""])[0]
        if not key or direction not in ("read", "write"):
            self._refuse(connection, 400)
            return
        channel = self.channels.find(address.path.removeprefix(_CHANNELS), key)
        if channel is None:
            connection.refuse(404, "Channel not found")
            return
        link = ChannelLink(connection, channel, "read" if direction == "read" else "write")
        if connection.accept(request, link, subprotocol):
            link.open()

    def _turn_away(self, connection: WebSocket) -> None:
        """Refuse a stranger; who tries again and again has to wait for it."""
        delay = self._throttle.delay(connection.client[0], self._loop.time())
        if delay:
            self.counters["throttled"] += 1
            self._loop.call_later(delay, self._refuse, connection, 401)
        else:
            self._refuse(connection, 401)

    def _refuse(self, connection: WebSocket, status: int) -> None:
        self.counters[f"refused_{status}"] += 1
        connection.refuse(status, _REASONS[status])

    def on_end(self, connection: WebSocket) -> None:
        """The connection's socket is closed."""
        self.connections.discard(connection)

    # Signs of life

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self.connections):
            self._look_after(connection, now)
        self.channels.sweep()
        self._sweeper = self._loop.call_later(self.limits.sweep, self._sweep)

    def _look_after(self, connection: WebSocket, now: float) -> None:
        why = self._why_over(connection, now)
        if why:
            self.counters[why] += 1
            connection.abort()
        elif not connection.is_patient and now - connection.heard_at > self.limits.ping_after:
            connection.ping()

    def _why_over(self, connection: WebSocket, now: float) -> str:
        limits, stalled = self.limits, now - connection.moved_at
        if connection.is_handshaking:
            reasons = {"never_asked": now - connection.opened_at > limits.handshake}
        elif connection.is_closing:
            reasons = {"never_closed": stalled > limits.close}
        elif connection.is_patient:
            reasons = {}
        else:
            is_slow = connection.backlog > limits.backlog and stalled > limits.stall
            reasons = {"slow_consumer": is_slow, "gone": now - connection.heard_at > limits.gone_after}
        return next((reason for reason, holds in reasons.items() if holds), "")

    def cut_if_deaf(self, connection: WebSocket) -> None:
        """Drop a client that has left too much unread, after this turn."""
        if connection.backlog > self.limits.backlog + MAX_MESSAGE:
            self.counters["slow_consumer"] += 1
            self._loop.call_soon(connection.abort)

    def take_telemetry(self, data: bytes) -> bool:
        """Take a telemetry frame; False if it is none."""
        prefix = data[:4]
        if prefix not in TELEMETRY:
            return False
        self.counters[f"telemetry_{prefix.decode()}"] += 1
        self.on_telemetry(prefix.decode(), data[4:])
        return True

    def close(self) -> None:
        """Close every connection: the engine stops."""
        self.acceptor.close()
        self._sweeper.cancel()
        for connection in list(self.connections):
            connection.close(1001)
            connection.abort()


def _drop(_: str, __: bytes) -> None:
    """Nobody wants telemetry."""


def _words(values: list[str]) -> list[str]:
    return [word.strip() for value in values for word in value.split(",")]


def _say_busy(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it does not listen: nothing is owed
        connected.send(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    connected.close()
