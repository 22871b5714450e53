"""A peer: anything connected that speaks the protocol, as the router sees it. Pure state.

The router appends lines to `outbox`. The connection that owns the peer's transport writes them, counts in `written`
what the kernel has taken, and changes nothing else here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from iii.protocol.codec import decode
from iii.protocol.lines import MAX_LINE

if TYPE_CHECKING:
    from iii.protocol.messages import Message

PeerKind = Literal["worker", "client", "engine"]


def _no_transport() -> None:
    """The peer has no transport, or needs none to do this."""


class Owner:
    """What functions, bindings and actions belong to: a supervised worker through all its generations, or one peer.

    `waiting` holds calls that no peer can take right now, in order of arrival: the worker is starting, reloading
    or backing off (`is_expected`), or all its instances are at their concurrency.
    """

    __slots__ = (
        "connects",
        "has_served",
        "is_expected",
        "is_supervised",
        "is_validated",
        "name",
        "namespace",
        "peers",
        "refusal",
        "waiting",
    )

    def __init__(self, name: str, namespace: str, *, supervised: bool) -> None:
        self.name = name
        self.namespace = namespace
        self.is_supervised = supervised
        self.is_expected = False
        self.has_served = False
        self.connects = False  # its processes open connections of their own, beside their pipes
        self.is_validated = True  # whether payloads are checked against request formats
        self.peers: list[Peer] = []  # the serving ones
        self.refusal: Mapping[str, Any] | None = None  # details of `worker_unavailable`
        self.waiting: deque[Any] = deque()  # of Invocation, whose module imports this one

    @property
    def has_room(self) -> bool:
        """Whether a serving peer can take one more call."""
        return any(peer.has_room for peer in self.peers)

    def __repr__(self) -> str:
        return f"<Owner {self.name} {len(self.waiting)} waiting>"


class Peer:
    """One connection. `is_serving` is false while a new generation registers, and again once it is retired.

    `flush`, `drain` and `close` are the transport's: write the outbox, read what is left, close. A transport that is
    made for a peer that exists sets `flush` by `connect`.
    """

    __slots__ = (
        "abandoned",
        "answered",
        "busy",
        "close",
        "concurrency",
        "connected_at_ms",
        "decode",
        "drain",
        "drains_clients",
        "enqueued",
        "flush",
        "functions",
        "generation",
        "heard_at",
        "id",
        "info",
        "instance",
        "ip_address",
        "is_gone",
        "is_retired",
        "is_serving",
        "kind",
        "max_line",
        "may_be_trusted",
        "name",
        "namespace",
        "outbox",
        "outgoing",
        "owner",
        "pid",
        "reattach_token",
        "staged",
        "written",
    )

    def __init__(  # noqa: PLR0913 - a record; every argument is one column
        self,
        id: str,
        *,
        kind: PeerKind,
        name: str = "",
        namespace: str = "default",
        owner: Owner | None = None,
        generation: int | None = None,
        instance: int | None = None,
        concurrency: int | None = None,
        pid: int | None = None,
        reattach_token: str | None = None,
        connected_at_ms: int = 0,
        flush: Callable[[], None] = _no_transport,
        drain: Callable[[], None] = _no_transport,
        close: Callable[[], None] = _no_transport,
    ) -> None:
        self.id = id
        self.kind = kind
        self.name = name
        self.namespace = namespace
        self.owner = owner or Owner(name or id, namespace, supervised=False)
        self.generation = generation
        self.instance = instance
        self.concurrency = concurrency
        self.pid = pid
        self.reattach_token = reattach_token
        self.connected_at_ms = connected_at_ms
        self.info: dict[str, Any] = {}  # the payload of `engine::workers::register`
        self.is_serving = not self.owner.is_supervised
        self.is_retired = False
        self.is_gone = False
        self.functions: dict[Any, None] = {}  # of Function, whose module imports this one: provided or stood by for
        self.staged: list[Message] = []  # registrations made before serving
        self.busy = 0  # calls it is executing
        self.abandoned = 0  # those of them whose callers have given up
        self.drains_clients = False  # asked to stop, it first ends clients of its own, and may make calls for them
        self.answered = 0  # calls it has ended
        self.heard_at = 0.0  # monotonic seconds of its last line
        self.outgoing = 0  # calls it waits for
        self.outbox: list[bytes] = []
        self.enqueued = 0  # bytes ever put into the outbox, newlines included
        self.written = 0  # bytes of them that the transport has taken
        self.ip_address = "127.0.0.1"
        self.max_line = MAX_LINE  # bytes of one line that its transport carries
        self.may_be_trusted = False  # to write valid lines: a process that the engine started, on its pipes
        self.decode: Callable[[bytes], Any] = decode  # `decode_trusted` once a trusted peer asks for it
        self.flush = flush
        self.drain = drain
        self.close = close

    def connect(self, flush: Callable[[], None]) -> None:
        """Let a transport write the outbox from now on."""
        self.flush = flush

    def take_outbox(self) -> list[bytes]:
        """Return the lines of the outbox and count them as written: for transports that take everything at once."""
        lines, self.outbox = self.outbox, []
        self.written = self.enqueued
        return lines

    def disconnect(self) -> None:
        """Let go of the transport: the two refer to each other, and would both stay until a garbage collection."""
        self.flush = self.drain = self.close = _no_transport

    @property
    def unsent_bytes(self) -> int:
        """Bytes sent to this peer that its transport has not taken yet."""
        return self.enqueued - self.written

    @property
    def owed(self) -> int:
        """How many calls it must still finish before it may stop: those whose callers have not given up."""
        return self.busy - self.abandoned

    @property
    def has_room(self) -> bool:
        """Whether one more call may be dispatched to it now."""
        return self.concurrency is None or self.busy < self.concurrency

    def __repr__(self) -> str:
        generation = f" generation {self.generation}" if self.generation is not None else ""
        return f"<Peer {self.name or self.id}{generation} {self.busy} busy>"
