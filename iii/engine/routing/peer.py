"""A peer: anything connected that speaks the protocol, as the router sees it. Pure state.

The router appends lines to `outbox`. The connection that owns the peer's transport writes them, counts in `written`
what the kernel has taken, and changes nothing else here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from iii.engine.routing.budget import CALL_OVERHEAD
from iii.protocol.codec import decode
from iii.protocol.lines import MAX_LINE
from iii.protocol.messages import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from iii.protocol.messages import Message, RegisterTrigger

PeerKind = Literal["worker", "client", "engine"]


def _no_transport() -> None:
    """The peer has no transport, or needs none to do this."""


def _holds_nothing(_: int) -> bool:
    """The kernel cannot say which process holds the other end."""
    return False


class Rights(Protocol):
    """What a session may do: a peer on a listener with rules has fewer rights than the project's own peers."""

    def refusal(self, message: Message) -> str | None:
        """Return why the session may not send this message now; None if it may."""

    def may_invoke(self, namespace: str, function_id: str) -> bool:
        """Whether it may have this function called, directly or not."""

    def may_bind_to(self, trigger_type: str) -> bool: ...

    def called_by(self, binding: RegisterTrigger) -> RegisterTrigger:
        """Return the binding as its provider gets it: the functions it names are those that run the rules' checks."""


@dataclass(slots=True, eq=False, repr=False)
class Owner:
    """What functions, bindings and actions belong to: a supervised worker through all its generations, or one peer.

    `waiting` holds calls that no peer can take right now, in order of arrival: the worker is starting, reloading
    or backing off (`is_expected`), or all its instances are at their concurrency.
    """

    name: str
    namespace: str
    _: KW_ONLY
    is_supervised: bool
    is_expected: bool = False
    has_served: bool = False
    # The engine itself, and who gets its telemetry or shows it: what they do is no work of the project. Their calls and
    # functions are not counted, and begin no trace.
    is_observer: bool = False
    has_own_connections: bool = False  # its processes open connections of their own, beside their pipes
    is_remote: bool = False  # the other engines of a cluster: what runs here is preferred
    fires_triggers: bool = False  # it provides a trigger type, or has: its calls may be made for events
    is_validated: bool = True  # whether payloads are checked against request formats
    rights: Rights | None = None  # of a session; None for everything else, which may do anything
    refusals: int = 0  # registrations of the session that were refused
    peers: list[Peer] = field(default_factory=list)  # the serving ones
    why_unavailable: Mapping[str, Any] | None = None  # details of the error that calls get; None while they may wait
    waiting: deque[Any] = field(default_factory=deque)  # of Invocation, whose module imports this one

    @property
    def keeps_vacancies(self) -> bool:
        """Whether its functions and actions stay while none of its peers serves: they will again, or calls fail."""
        return self.is_supervised and not self.peers and (self.is_expected or self.why_unavailable is not None)

    @property
    def has_room(self) -> bool:
        """Whether a serving peer can take one more call."""
        return any(peer.has_room for peer in self.peers)


@dataclass(slots=True, eq=False, repr=False)
class Peer:
    """One connection. `is_serving` is false while a new generation registers, and again once it is retired.

    `flush`, `drain` and `close` belong to the transport: write the outbox, read what is left, close. A connection
    that is made after its peer sets its `flush` then.
    """

    id: str
    _: KW_ONLY
    kind: PeerKind
    name: str = ""
    namespace: str = DEFAULT_NAMESPACE
    owner: Owner = None  # type: ignore[assignment]  # without one, the peer gets an owner of its own
    generation: int | None = None
    instance: int | None = None
    engine: str | None = None  # the name of the other engine that it stands for; None for all that runs here
    concurrency: int | None = None
    pid: int | None = None
    reattach_token: str | None = None
    connected_at_ms: int = 0
    ip_address: str = "127.0.0.1"
    max_line: int = MAX_LINE  # bytes of one line that its transport carries
    features: frozenset[str] = frozenset()  # of the protocol, that it has said it knows
    is_local: bool = False  # connected to the unix socket: a program of the project's own user
    may_be_trusted: bool = False  # to write valid lines: a process that the engine started, on its pipes
    # Whether the kernel says that the process with this pid holds the other end of the connection.
    is_held_by: Callable[[int], bool] = _holds_nothing
    decode: Callable[[bytes], Any] = decode  # `decode_trusted` once a trusted peer asks for it
    flush: Callable[[], None] = _no_transport
    drain: Callable[[], None] = _no_transport
    close: Callable[[], None] = _no_transport
    # What follows changes while the peer is connected.
    info: dict[str, Any] = field(default_factory=dict)  # the payload of `engine::workers::register`
    functions: dict[Any, None] = field(default_factory=dict)  # of Function: those it provides or stands by for
    staged: list[Message] = field(default_factory=list)  # registrations made before serving
    is_serving: bool = field(init=False)
    is_retired: bool = False
    is_gone: bool = False
    drains_clients: bool = False  # asked to stop, it first ends clients of its own, and may make calls for them
    busy: int = 0  # calls it is executing
    abandoned: int = 0  # calls it is executing whose callers have given up
    answered: int = 0  # calls it has ended
    outgoing: int = 0  # calls it waits for
    held: int = 0  # bytes that the engine holds for it, without its calls with short lines, see `budget`
    heard_at: float = 0.0  # monotonic seconds of its last line
    outbox: list[bytes] = field(default_factory=list)
    enqueued: int = 0  # bytes ever put into the outbox, newlines included
    written: int = 0  # bytes of them that the transport has taken

    def __post_init__(self) -> None:
        if self.owner is None:
            is_engine = self.kind == "engine"
            self.owner = Owner(self.name or self.id, self.namespace, is_supervised=False, is_observer=is_engine)
        self.is_serving = not self.owner.is_supervised

    def take_outbox(self) -> list[bytes]:
        """Return the lines of the outbox and count them as written: for transports that take everything at once."""
        lines, self.outbox = self.outbox, []
        self.written = self.enqueued
        return lines

    def worker_of(self, function_id: str) -> str:  # noqa: ARG002 - the peer of another engine has those of many
        """Return the name of the worker that provides this function of the peer."""
        return self.owner.name

    def disconnect(self) -> None:
        """Let go of the transport: the two refer to each other, and would both stay until a garbage collection."""
        self.flush = self.drain = self.close = _no_transport

    @property
    def held_for_calls(self) -> int:
        """Bytes that the engine holds for its calls, those with short lines among them."""
        return self.held + CALL_OVERHEAD * self.outgoing

    @property
    def rights(self) -> Rights | None:
        """What the peer may do as a session; None if it is none."""
        return self.owner.rights

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
