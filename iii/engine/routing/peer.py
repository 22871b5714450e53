"""A peer: anything connected that speaks the protocol, as the router sees it.

Pure state. The router appends lines to `outbox`; the connection that owns the transport writes them, counts what
the other side's kernel has taken in `written`, and never changes anything else here.
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


def _drop() -> None:
    """Nobody owns a transport for this peer yet."""


class Owner:
    """Who functions, bindings and actions belong to: a supervised worker through all its generations, or one peer.

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
        self.connects = False  # a process of it has come over a connection of its own
        self.is_validated = True  # whether payloads are held against request formats
        self.peers: list[Peer] = []  # those that serve now
        self.refusal: Mapping[str, Any] | None = None  # details of `worker_unavailable`
        # Of `Invocation`, and below of `Function`: both name their peers, so that this module cannot name them.
        self.waiting: deque[Any] = deque()

    @property
    def has_room(self) -> bool:
        """Whether any of its serving peers can take one more call."""
        return any(peer.has_room for peer in self.peers)

    def __repr__(self) -> str:
        return f"<Owner {self.name} {len(self.waiting)} waiting>"


class Peer:
    """One connection. `serving` is false while a new generation registers, and again once it is retired."""

    __slots__ = (
        "abandoned",
        "answered",
        "busy",
        "close",
        "concurrency",
        "connected_at_ms",
        "decode",
        "drain",
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
        "lingers",
        "max_line",
        "may_vouch",
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
        self.info: dict[str, Any] = {}  # what `engine::workers::register` told
        self.is_serving = not self.owner.is_supervised
        self.is_retired = False
        self.is_gone = False
        self.functions: dict[Any, None] = {}  # those it provides or stands by for, in order
        self.staged: list[Message] = []  # registrations made before serving
        self.busy = 0  # calls it is executing
        self.abandoned = 0  # those of them whose callers have given up
        self.lingers = False  # it ends clients of its own before it stops
        self.answered = 0  # calls it has ended
        self.heard_at = 0.0  # monotonic, when the last line of it came
        self.outgoing = 0  # calls it waits for
        self.outbox: list[bytes] = []
        self.enqueued = 0  # bytes ever put into the outbox, newlines included
        self.written = 0  # bytes of them that the transport has taken
        self.ip_address = "127.0.0.1"
        self.max_line = MAX_LINE  # bytes of one line that its transport carries
        self.may_vouch = False  # a process that we have started, on its pipes: it could do us harm in other ways
        self.decode: Callable[[bytes], Any] = decode
        # Set by the transport's owner: write the outbox, read what is left, close.
        self.flush: Callable[[], None] = _drop
        self.drain: Callable[[], None] = _drop
        self.close: Callable[[], None] = _drop

    def take_outbox(self) -> list[bytes]:
        """Return the lines of the outbox, which count as written: for transports that take everything at once."""
        lines, self.outbox = self.outbox, []
        self.written = self.enqueued
        return lines

    def disconnect(self) -> None:
        """Let go of the transport's owner: the two know each other, and would wait for the collector together."""
        self.flush = self.drain = self.close = _drop

    @property
    def backlog(self) -> int:
        """Bytes sent to this peer that its transport has not taken yet."""
        return self.enqueued - self.written

    @property
    def owed(self) -> int:
        """How many calls it must still finish before it may go: nobody waits for what was given up."""
        return self.busy - self.abandoned

    @property
    def has_room(self) -> bool:
        """Whether one more call may be dispatched to it now."""
        return self.concurrency is None or self.busy < self.concurrency

    def __repr__(self) -> str:
        generation = f" generation {self.generation}" if self.generation is not None else ""
        return f"<Peer {self.name or self.id}{generation} {self.busy} busy>"
