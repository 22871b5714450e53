"""One observer: what it was asked for, how far it is, and what it has done. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Raw, Struct

from iii.engine.observing.filters import Filter, InvalidFilter
from iii.engine.routing.message_forms import malformed_name
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from iii.engine.observing.occurrence import Occurrence
    from iii.engine.routing.peer import Peer, Rights

State = Literal["pending", "active", "suspended", "error", "disposed"]
# Namespace and id of a function.
Key = tuple[str, str]

PARTS = ("input", "output", "error", "caller", "metadata")
DEFAULT_CAPTURE = ["input", "output", "caller"]
OUTCOMES = ("success", "error", "complete")
DELIVERIES = ("envelope", "input", "output")
# Bytes of what an observer may ask the function's worker for.
MAX_ARGS = 64 * 1024


class Rejected(Exception):
    """The observer cannot be: `code` is one of the public contract."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.body = m.ErrorBody(code, message)


class Cancellable(Protocol):
    def cancel(self) -> None: ...


class SourceField(Struct, gc=False):
    """The value of `source` of an `observe`."""

    function_id: str
    namespace: str | None = None
    args: dict[str, Any] | None = None
    filters: Any = None
    capture: list[str] | None = None
    on: str | None = None
    deliver: str | None = None


class TargetField(Struct, gc=False):
    """The value of `target` of an `observe`."""

    function_id: str
    namespace: str | None = None


class Definition(Struct, frozen=True):
    """What an `observe` asks for, with the contract's defaults. Two that are equal ask for the same."""

    source: Key
    target: Key
    args: dict[str, Any]
    filters: dict[str, Any]
    capture: list[str]
    on: str
    deliver: str
    metadata: Any
    max_fires: int | None
    expires_in_ms: float | None
    max_in_flight: int | None


def definition_from(message: m.Observe) -> Definition:
    """Read an `observe`. Raises `Rejected` (`INVALID_ARGS`, `INVALID_FILTER`, `SELF_TARGET`, `UNSUPPORTED`)."""
    try:
        source = decode_value(message.source, type=SourceField)
        target = decode_value(message.target, type=TargetField)
    except ValueError as error:
        raise Rejected("INVALID_ARGS", f"an observer needs a source and a target: {error}") from None
    for named in (source, target):
        # A registration of a function has the same names, and the same limits for them.
        wrong = malformed_name(named) if named.function_id else "function_id is empty"  # type: ignore[arg-type]
        if wrong is not None:
            raise Rejected("INVALID_ARGS", wrong)
    on, deliver = source.on or "success", source.deliver or "envelope"
    capture = DEFAULT_CAPTURE if source.capture is None else list(dict.fromkeys(source.capture))
    _check_known("on", [on], OUTCOMES)
    _check_known("deliver", [deliver], DELIVERIES)
    _check_known("capture", capture, PARTS)
    for name in ("max_fires", "max_in_flight", "expires_in_ms"):
        limit = getattr(message, name)
        if limit is not None and not 0 < limit < float("inf"):
            raise Rejected("INVALID_ARGS", f"{name} is {limit}; it must be above 0")
    args = source.args or {}
    if len(encode_value(args)) > MAX_ARGS:
        raise Rejected("INVALID_ARGS", f"args have over {MAX_ARGS} bytes")
    keys = [(named.namespace or m.DEFAULT_NAMESPACE, named.function_id) for named in (source, target)]
    if keys[0] == keys[1]:
        raise Rejected("SELF_TARGET", f"{source.function_id} cannot be called for its own calls")
    filters = {} if source.filters is None else source.filters
    metadata = None if m.is_empty(message.metadata) else decode_value(message.metadata)
    limits = message.max_fires, message.expires_in_ms, message.max_in_flight
    return Definition(keys[0], keys[1], args, filters, capture, on, deliver, metadata, *limits)


def _check_known(name: str, values: Iterable[str], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            raise Rejected("UNSUPPORTED", f"{name} {value!r} is unknown; there are {', '.join(known)}")


@dataclass(slots=True, eq=False, repr=False)
class Observer:
    """An observer through its whole life.

    `peers` are those that have asked for it under its one id: the processes of one worker, none while it is away.
    """

    id: str
    definition: Definition
    filter: Filter
    peers: list[Peer]
    worker_name: str
    rights: Rights | None
    state: State = "pending"
    reason: m.ErrorBody | None = None
    has_been_active: bool = False
    accepted_by: set[Peer] = field(default_factory=set)  # of the function's workers that have to be asked
    fires: int = 0
    in_flight: int = 0
    running_bytes: int = 0
    failed: int = 0  # activations that ended in an error
    drops: Counter[str] = field(default_factory=Counter)
    waiting: deque[Occurrence] = field(default_factory=deque)
    waiting_bytes: int = 0
    expiry: Cancellable | None = None
    legacy: dict[str, Any] | None = None  # `trigger_type` and `config` of the binding that it comes from
    patience: Cancellable | None = None  # of who waits for the function's worker, or for the observer's to come back

    def __repr__(self) -> str:
        return f"<Observer {self.id} {self.state} of {self.source[1]} for {self.target[1]}, {self.fires} fires>"

    @property
    def source(self) -> Key:
        return self.definition.source

    @property
    def target(self) -> Key:
        return self.definition.target

    @property
    def is_over(self) -> bool:
        """Whether it stays as it is, until it is asked for anew."""
        return self.state in ("error", "disposed")

    def is_of(self, peer: Peer) -> bool:
        """Whether this peer may ask for the observer again, or end it: one of its worker's, or its next connection."""
        is_same_owner = any(one.owner is peer.owner for one in self.peers)
        is_known = is_same_owner or (not self.peers and self.worker_name == peer.name)
        return is_known and (self.rights is None) is (peer.rights is None)

    def wants(self, status: str) -> bool:
        """Whether it is for calls that end this way, `success` or `error`."""
        return self.definition.on in ("complete", status)

    def for_owner(self) -> Raw:
        """Return what the function's worker is told: nothing of who observes."""
        definition = self.definition
        told = {
            "id": self.id,
            "args": definition.args,
            "filters": self.filter.normal_form,
            "target": definition.target[1],
            "capture": definition.capture,
            "on": definition.on,
        }
        return Raw(encode_value(told if self.legacy is None else told | {"legacy": self.legacy}))

    def row(self) -> Mapping[str, Any]:
        """Return the row of lists."""
        definition = self.definition
        row: dict[str, Any] = {
            "id": self.id,
            "state": self.state,
            "source": {
                "function_id": self.source[1],
                "namespace": self.source[0],
                "args": definition.args,
                "filters": definition.filters,
                "capture": definition.capture,
                "on": definition.on,
                "deliver": definition.deliver,
            },
            "target": {"function_id": self.target[1], "namespace": self.target[0]},
            "worker_name": self.worker_name,
            "fires": self.fires,
            "in_flight": self.in_flight,
            "queued": len(self.waiting),
            "failed": self.failed,
            "dropped": dict(self.drops),
        }
        if self.reason is not None:
            row["reason"] = {"code": self.reason.code, "message": self.reason.message}
        if self.legacy is not None:
            row["legacy"] = self.legacy
        limits = {name: getattr(definition, name) for name in ("max_fires", "expires_in_ms", "max_in_flight")}
        return row | {name: limit for name, limit in limits.items() if limit is not None}


def observer_from(id: str, definition: Definition, peer: Peer) -> Observer:
    """Raises `Rejected` (`INVALID_FILTER`)."""
    try:
        checked = Filter(definition.filters)
    except InvalidFilter as error:
        raise Rejected("INVALID_FILTER", str(error)) from None
    return Observer(id, definition, checked, [peer], peer.name, peer.rights)


def warnings_of(definition: Definition, checked: Filter) -> list[str]:
    """Return what of a definition can never come to anything."""
    never = {"success": "error", "error": "output"}.get(definition.on)
    warnings = []
    if never in checked.roots:
        warnings.append(f"the filters read {never}, which no call has that ends with {definition.on}")
    if never == "output" and definition.deliver == "output":
        warnings.append("a call that ends with an error has no output: the target gets null")
    return warnings
