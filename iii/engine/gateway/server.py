"""The gateway: the WebSocket listener where official SDKs, browsers and other engines connect as peers.

It owns the connections of one listener from accept to close: limits, admission, the three paths, pings of silent
clients. Messages are the business of sessions and the message pump; what a peer has to do with a worker's process is
that of `worker_connections.py`.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit
from weakref import WeakSet

from msgspec import Struct, field
from msgspec.structs import replace

from iii.engine.channels.channel import Channels
from iii.engine.gateway.authentication import AuthenticatingSession, AuthPolicy, ConnectingClient
from iii.engine.gateway.middleware_proxy import MiddlewareProxies
from iii.engine.gateway.rbac_session import RbacSession
from iii.engine.gateway.session import ChannelSession, PeerSession, TelemetrySession
from iii.engine.routing.events import Notice
from iii.engine.routing.peer import Peer
from iii.engine.security import peer_uid
from iii.engine.security.admission import AdmissionPolicy, AuthThrottle, HandshakeRequest, admit, loopback_hosts
from iii.engine.security.rbac import Permissions
from iii.engine.transport.accept import Acceptor
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.poller import Poller
from iii.engine.transport.session import Session
from iii.engine.transport.tcp_address import Address
from iii.errors import ErrorCode
from iii.protocol.frames import MAX_MESSAGE

if TYPE_CHECKING:
    from websockets.http11 import Request

    from iii.engine.transport.websocket import WebSocketConnection

# Prefixes of the official SDKs' telemetry frames: spans, metrics, log records.
TELEMETRY = (b"OTLP", b"MTRC", b"LOGS")
_PEERS, _TELEMETRY_ONLY, _CHANNELS = "/", "/otel", "/ws/channels/"
_REASONS = {400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 421: "Misdirected request"}
_REASONS[503] = "Too many connections"


class ConnectionLimits(Struct, frozen=True):
    """What a connection may cost. Seconds, bytes, connections."""

    connections: int = 4096  # of all other users together, also of those that have shown the token
    own_connections: int = 4096  # of the engine's user; every official worker holds two
    namespace_timeout: float = 5.0  # that registrations wait for the namespace of their peer
    handshakes: int = 64  # of other users that have not asked yet: one more drops the oldest
    handshake_timeout: float = 5.0  # a handshake is one packet; a slower client only keeps a descriptor busy
    ping_interval: float = 15.0  # of silence
    silence_timeout: float = 35.0  # pings included: with the sweep, a dead client is dropped within 40 s
    unsent_bytes: int = 32 * 1024 * 1024  # results are always sent: without a bound, slow consumers fill the memory
    slow_consumer_timeout: float = 5.0  # how long more unsent bytes than that may stand still
    close_timeout: float = 60.0  # how long a closing connection may take to read what was sent to it
    sweep_interval: float = 2.5  # between two checks of these limits


# The client's and the server's end of a socket.
Ends = tuple[peer_uid.Address, peer_uid.Address]


class ListenerOptions(Struct, frozen=True):
    """Where a gateway listens and which clients it admits.

    `origins` are the web pages that may connect, as `scheme://host:port`. `token` is None if the auth function of
    `auth_policy` decides about every client. `are_same_user` says of each socket whether it is the engine's user's.
    """

    address: Address
    token: str | None
    origins: tuple[str, ...] = ()
    auth_policy: AuthPolicy | None = None
    throttle: AuthThrottle = field(default_factory=AuthThrottle)
    are_same_user: Callable[[Sequence[Ends]], list[bool]] = peer_uid.are_same_user


class Gateway:
    """One listener and all its connections.

    `on_telemetry(prefix, data)` gets the telemetry frames of SDKs. `on_routed(peer)` is called after each batch of
    messages of a peer that is not serving yet. `on_left(peer)` is called when a peer's connection is gone: it detaches
    the peer, now or when its process has exited.
    """

    def __init__(
        self,
        pump: MessagePump,
        channels: Channels,
        options: ListenerOptions,
        limits: ConnectionLimits | None = None,
        *,
        poller: Poller,
        on_telemetry: Callable[[str, bytes], None],
        on_routed: Callable[[Peer], None],
        on_left: Callable[[Peer], None],
    ) -> None:
        self.pump = pump
        self.channels = channels
        self._poller = poller
        self.limits = limits or ConnectionLimits()
        self.namespace_timeout = self.limits.namespace_timeout
        self.counters: Counter[str] = Counter()
        self.on_telemetry = on_telemetry
        self.on_routed = on_routed
        self.on_left = on_left
        self.address = options.address
        self._options = options
        self._policy = options.auth_policy
        self._proxies = MiddlewareProxies(pump.router)
        self._sessions: WeakSet[RbacSession] = WeakSet()
        self._admission_policy = AdmissionPolicy(
            hosts=loopback_hosts(options.address.port) if options.address.is_loopback else None,
            origins=options.origins,
            token=options.token,
        )
        self.connections: set[WebSocketConnection] = set()
        # Without a whole request yet, oldest first: those whose user is not looked up yet, and those of other users.
        self._unknown: dict[WebSocketConnection, None] = {}
        self._idle_strangers: dict[WebSocketConnection, None] = {}
        # With a request: of the engine's user, and of others.
        self._own: set[WebSocketConnection] = set()
        self._others: set[WebSocketConnection] = set()
        self._loop = asyncio.get_running_loop()
        self._acceptor = Acceptor(options.address.socket, self._accept)
        self._sweeper = self._loop.call_later(self.limits.sweep_interval, self._sweep)

    def _accept(self, connected: socket.socket) -> None:
        # The library is a tenth of what an engine's start would import, and most projects' workers speak over pipes.
        from iii.engine.transport.websocket import WebSocketConnection

        try:
            connection = WebSocketConnection(
                connected,
                self._on_request,
                self._on_connection_closed,
                poller=self._poller,
                budget=self.pump.router.calls.budget,
            )
        except OSError:
            connected.close()  # the client has left
        else:
            self.connections.add(connection)
            self._unknown[connection] = None
            if len(self._unknown) > self.limits.handshakes:
                self._drop_idle_strangers()

    def _drop_idle_strangers(self) -> None:
        """Find the connections of other users among those that have not asked yet, and keep the latest few of them.

        One look at the kernel's table for many connections: it takes longer than accepting one.
        """
        unknown, self._unknown = list(self._unknown), {}
        own = self._options.are_same_user([(one.client, one.server) for one in unknown])
        self._idle_strangers |= {one: None for one, is_own in zip(unknown, own, strict=True) if not is_own}
        for one in list(self._idle_strangers)[: -self.limits.handshakes]:
            self.counters["over_limit"] += 1
            one.abort()

    def _on_connection_closed(self, connection: WebSocketConnection) -> None:
        self.connections.discard(connection)
        self._own.discard(connection)
        self._others.discard(connection)
        self._forget_idle(connection)

    def _forget_idle(self, connection: WebSocketConnection) -> None:
        self._unknown.pop(connection, None)
        self._idle_strangers.pop(connection, None)

    def _has_room_for(self, connection: WebSocketConnection, *, is_same_user: bool) -> bool:
        """Whether the gateway keeps one more connection: other users take no place of the engine's user."""
        self._forget_idle(connection)
        limits = self.limits
        asked, most = (self._own, limits.own_connections) if is_same_user else (self._others, limits.connections)
        asked.add(connection)
        return len(asked) <= most

    def _on_request(self, connection: WebSocketConnection, request: Request) -> None:
        [is_same_user] = self._options.are_same_user([(connection.client, connection.server)])
        if not self._has_room_for(connection, is_same_user=is_same_user):
            self.counters["over_limit"] += 1
            self._reject(connection, 503)
            return
        url = urlsplit(request.path)
        headers = request.headers
        handshake = HandshakeRequest(
            hosts=headers.get_all("Host"),
            origins=headers.get_all("Origin"),
            authorizations=headers.get_all("Authorization"),
            subprotocols=[
                name.strip() for names in headers.get_all("Sec-WebSocket-Protocol") for name in names.split(",")
            ],
            query=url.query,
            is_same_user=is_same_user,
        )
        policy = self._admission_policy
        if url.path.startswith(_CHANNELS):
            # A channel's key is its credential, and the SDKs send no token there; pages stay out all the same.
            policy = replace(policy, token=None)
        response = admit(policy, handshake)
        if not request.path.startswith("/"):
            self._reject(connection, 400)  # the absolute form is for proxies
        elif response.status == 401:
            self._reject_unauthorized(connection)
        elif response.status != 101:
            self._reject(connection, response.status)
        elif url.path.startswith(_CHANNELS):
            self._open_channel(connection, request, response.subprotocol)
        elif url.path in (_PEERS, _TELEMETRY_ONLY):
            session = self._first_session(connection, request, is_peer=url.path == _PEERS)
            connection.accept(request, session, response.subprotocol)
        else:
            self._reject(connection, 404)

    def _first_session(self, connection: WebSocketConnection, request: Request, *, is_peer: bool) -> Session:
        policy = self._policy
        if policy is None:
            return PeerSession(connection, self) if is_peer else TelemetrySession(self, self.take_telemetry)

        def on_authenticated(permissions: Permissions) -> None:
            if not is_peer:
                connection.replace_session(TelemetrySession(self, self.refuse_telemetry))
                return
            session = RbacSession(connection, self, policy, permissions, self._proxies)
            self._sessions.add(session)
            connection.replace_session(session)
            if policy is not self._policy and self._policy is not None:
                session.apply(self._policy)  # the rules changed while its client was authenticated

        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        client = ConnectingClient(headers, query, connection.client[0])
        return AuthenticatingSession(connection, policy, client, on_authenticated)

    def apply(self, policy: AuthPolicy, *, origins: tuple[str, ...], token: str | None) -> None:
        """Hold clients and sessions to other rules from now on, also the bindings that sessions have made."""
        self._policy = policy
        self._admission_policy = replace(self._admission_policy, origins=origins, token=token)
        for session in list(self._sessions):
            session.apply(policy)
        self.pump.router.registrations.judge_sessions()
        self.pump.turn()

    def _open_channel(self, connection: WebSocketConnection, request: Request, subprotocol: str | None) -> None:
        url = urlsplit(request.path)
        query = parse_qs(url.query)
        key, direction = query.get("key", [""])[0], query.get("dir", [""])[0]
        channel = self.channels.find(url.path.removeprefix(_CHANNELS), key)
        if not key or direction not in ("read", "write"):
            self._reject(connection, 400)
        elif channel is None:
            connection.reject(404, "Channel not found")
        else:
            session = ChannelSession(connection, channel, "read" if direction == "read" else "write")
            connection.accept(request, session, subprotocol)

    def _reject_unauthorized(self, connection: WebSocketConnection) -> None:
        """Reject a client of another user; one that tries again and again has to wait for the answer."""
        delay = self._options.throttle.delay(connection.client[0], self._loop.time())
        if delay:
            self.counters["throttled"] += 1
            self._loop.call_later(delay, self._reject, connection, 401)
        else:
            self._reject(connection, 401)

    def _reject(self, connection: WebSocketConnection, status: int) -> None:
        self.counters[f"refused_{status}"] += 1
        connection.reject(status, _REASONS[status])

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self.connections):
            reason = self._reason_to_abort(connection, now)
            if reason is not None:
                self.counters[reason] += 1
                connection.abort()
            elif not connection.may_be_silent and now - connection.received_at > self.limits.ping_interval:
                connection.ping()
        self.channels.sweep()
        self._sweeper = self._loop.call_later(self.limits.sweep_interval, self._sweep)

    def _reason_to_abort(self, connection: WebSocketConnection, now: float) -> str | None:
        """Return the counter of the limit that a connection is over, None if it is within all of them."""
        limits, stalled = self.limits, now - connection.sent_at
        if connection.is_handshaking:
            return "never_asked" if now - connection.opened_at > limits.handshake_timeout else None
        if connection.is_closing:
            return "never_closed" if stalled > limits.close_timeout else None
        if connection.may_be_silent:
            return None
        if connection.unsent_bytes > limits.unsent_bytes and stalled > limits.slow_consumer_timeout:
            return "slow_consumer"
        return "gone" if now - connection.received_at > limits.silence_timeout else None

    def abort_if_slow(self, connection: WebSocketConnection) -> None:
        if connection.unsent_bytes > self.limits.unsent_bytes + MAX_MESSAGE:
            self.counters["slow_consumer"] += 1
            self._loop.call_soon(connection.abort)

    def take_telemetry(self, data: bytes) -> bool:
        prefix = data[:4]
        if prefix not in TELEMETRY:
            return False
        self.counters[f"telemetry_{prefix.decode()}"] += 1
        self.on_telemetry(prefix.decode(), data[4:])
        return True

    def refuse_telemetry(self, data: bytes) -> bool:
        if data[:4] not in TELEMETRY:
            return False
        self.counters["refused_telemetry"] += 1
        if self.counters["refused_telemetry"] == 1:
            text = "telemetry of sessions is not taken; the engine records itself what they call and answer"
            self.pump.router.calls.events.append(Notice("gateway", text, ErrorCode.FORBIDDEN))
            self.pump.turn()
        return True

    def close(self) -> None:
        self._acceptor.close()
        self._sweeper.cancel()
        for connection in list(self.connections):
            connection.close(1001)
            connection.abort()
