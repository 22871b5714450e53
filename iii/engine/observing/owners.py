"""What the workers of observed functions are told, and asked. Pure.

A worker that knows `observe.v1` hears of every function that it has registered, and of the observers of each; it has to
accept an observer before that one is active. Whether it may run calls of its own functions itself, past the engine, is
decided here too: only where no rule of the engine needs to see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Raw

from iii.engine.observing.observer import Observer, Rejected
from iii.engine.routing.calls import Calls
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Function, Validator
from iii.errors import InvocationError
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode, encode_value

# Makes the check of payloads from the JSON Schema in `request_format`.
CompileSchema = Callable[[m.RegisterFunction], "Validator | None"]


class Owners:
    """The workers that are told of observers, and what each has been told."""

    def __init__(self, calls: Calls, compile_schema: CompileSchema) -> None:
        self._calls = calls
        self._compile_schema = compile_schema
        self._revision = 0
        self.told: dict[Peer, dict[Function, bool]] = {}  # whether it may run the calls of each itself

    def knows(self, peer: Peer) -> bool:
        return m.OBSERVE in peer.features

    def askable(self, function: Function) -> Iterable[Peer]:
        """The workers of a function that have to accept its observers."""
        return (peer for peer in function.providers if self.knows(peer))

    def forget(self, peer: Peer, function: Function | None = None) -> None:
        """The peer no longer has this function; with None, no function at all."""
        if function is None:
            self.told.pop(peer, None)
        elif peer in self.told:
            self.told[peer].pop(function, None)
            if not self.told[peer]:
                del self.told[peer]

    def tell_all(self, peer: Peer, function: Function, observers: Iterable[Observer]) -> None:
        """Tell a worker that its function is accepted, and who observes it."""
        is_local = self.why_not_local(peer, function) is None
        self.told.setdefault(peer, {})[function] = is_local
        told = [observer.for_owner() for observer in observers]
        self._send(peer, m.FunctionRegistered(function.id, function.namespace, self._next(), is_local, told))

    def tell_added(self, function: Function, observer: Observer) -> None:
        for peer in self.askable(function):
            added = m.ObserverAdded(function.id, function.namespace, self._next(), observer.for_owner())
            self._send(peer, added)

    def tell_removed(self, function: Function, observer: Observer) -> None:
        for peer in self.askable(function):
            self._send(peer, m.ObserverRemoved(function.id, function.namespace, self._next(), observer.id))

    def _next(self) -> int:
        self._revision += 1
        return self._revision

    def _send(self, peer: Peer, message: m.Message) -> None:
        self._calls.send(peer, encode(message))

    def why_not_local(self, peer: Peer, function: Function) -> str | None:
        return why_not_local(self._calls, peer, function)

    def check(self, observer: Observer, function: Function) -> None:
        """Raise `Rejected` unless the function may be observed in this way."""
        described = how_observed(function)
        is_owned = described.delivery == "owner"
        if not described.allow:
            raise Rejected("NOT_OBSERVABLE", f"{function.id} does not allow observers")
        if not m.is_empty(function.declaration.invocation):
            raise Rejected("NOT_OBSERVABLE", f"{function.id} lives behind a URL: the engine does not see its calls end")
        if observer.rights is not None and function.owner.rights is not observer.rights:
            raise Rejected("FORBIDDEN", f"{function.id} is not the session's own: its calls are others' data")
        if is_owned and not all(map(self.knows, function.providers)):
            raise Rejected("UNSUPPORTED", f"the worker of {function.id} does not know {m.OBSERVE}")
        args = observer.definition.args
        if args and not is_owned:
            raise Rejected("INVALID_ARGS", f"{function.id} takes no args: its observers get all of its calls")
        if is_owned and not m.is_empty(described.args_format):
            self._check_args(function, described.args_format, Raw(encode_value(args)))

    def _check_args(self, function: Function, schema: Raw, args: Raw) -> None:
        try:
            validator = self._compile_schema(m.RegisterFunction(function.id, request_format=schema))
        except InvocationError as error:
            raise Rejected("INVALID_ARGS", f"the args format of {function.id} is no schema: {error.message}") from None
        mismatch = None if validator is None else validator(args)
        if mismatch is not None:
            raise Rejected(
                "INVALID_ARGS", f"args of {function.id}: {mismatch.get('message')} at {mismatch.get('path')}"
            )


def how_observed(function: Function) -> m.ObserveField:
    """Return what a function has said of its observers; the defaults for what cannot be read."""
    declared = function.declaration.observe
    try:
        return m.ObserveField() if m.is_empty(declared) else decode_value(declared, type=m.ObserveField)
    except ValueError:
        return m.ObserveField()


def why_not_local(calls: Calls, peer: Peer, function: Function) -> str | None:
    """Return why a worker may not run calls of its function itself; None if it may."""
    if m.LOCAL_DISPATCH not in peer.features:
        return "its worker does not ask for it"
    if peer.rights is not None:
        return "its worker is a session of a listener with rules"
    if function.validator is not None or function.result_validator is not None:
        return "its payloads or results are checked against a schema"
    if peer.concurrency is not None:
        return "its worker has a limited concurrency"
    return None if calls.tracer is None else "calls are traced"
