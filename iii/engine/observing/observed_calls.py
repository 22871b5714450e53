"""The way of calls and results past observers. Pure.

`admit` and `settle` stand before those of the call table only while there is a function with active observers, or a
worker that knows observers: with neither, calls do not come here. Such a worker also learns who has called it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Raw
from msgspec.structs import replace

from iii.engine.observing.delivery import Activation, Delivery, metadata_of
from iii.engine.observing.filters import TooManySteps
from iii.engine.observing.observer import Observer
from iii.engine.observing.occurrence import (
    ENGINE_NAME,
    CallerDetails,
    Occurrence,
    OccurrenceDocument,
    caller_details,
    without_caller_id,
)
from iii.engine.routing.causes import with_causes
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.message_forms import callee_line, checked_result
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.registry import Function
from iii.engine.routing.router import Admit, Router, Settle
from iii.engine.tracing.trace_context import baggage_for
from iii.errors import ProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import decode, decode_value, encode, encode_error, encode_value

# Calls whose beginning is remembered; of an older one the deadline tells it, roughly.
MAX_STARTED = 100_000


class ObservedCalls:
    """Shows calls to the observers of their functions. Implements `CallObserver`."""

    def __init__(
        self,
        router: Router,
        delivery: Delivery,
        observers: Mapping[str, Observer],
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        tracing_changed: Callable[[], None],
    ) -> None:
        self._router = router
        self._calls = router.calls
        self._delivery = delivery
        self._observers = observers
        self._clock = clock
        self._wall_clock = wall_clock
        self.tracing_changed = tracing_changed
        self._observed: set[Function] = set()
        self._started: dict[str, float] = {}
        self.sees_calls = False
        self._admit: Admit = router.calls.admit
        self._settle: Settle = router.calls.settle
        router.calls.on_ended = self.ended

    def follow(self, function: Function, *, has_workers: bool) -> None:
        """The observers of a function have changed, or whether a worker knows observers at all."""
        if function.observers and function.providers:
            self._observed.add(function)
        else:
            self._observed.discard(function)
        sees_calls = bool(self._observed) or has_workers
        if sees_calls is not self.sees_calls:
            self.sees_calls = sees_calls
            self._started.clear()
            self._router.choose_path()

    def paths(self, admit: Admit, settle: Settle) -> tuple[Admit, Settle]:
        self._admit, self._settle = admit, settle
        return self.admit, self.settle

    def owner_of(self, observer_id: str) -> Owner | None:
        """See `CallObserver`."""
        observer = self._observers.get(observer_id)
        return None if observer is None or not observer.peers else observer.peers[-1].owner

    # A call arrives

    def admit(
        self, origin: Peer, message: m.InvokeFunction, function: Function | None, line: bytes, now: float
    ) -> None:
        """As `Calls.admit`."""
        if message.activation is m.ABSENT and (function is None or not _is_told(function)):
            if function is not None and function.observers:
                self._note_start(message, now)
            self._admit(origin, message, function, line, now)
            return
        tracer = self._calls.tracer
        if (
            tracer is not None
            and not tracer.paused_until
            and message.caller is m.ABSENT
            and message.invocation_id not in self._calls.in_flight
            and tracer.begin_root(origin, message, function, now)
        ):
            message.baggage = baggage_for(message.function_id, None)
        if not self.takes(origin, message, function, now):
            self._calls.admit_in_full(origin, message, function, encode(message), now)

    def takes(self, peer: Peer, message: m.InvokeFunction, function: Function | None, now: float) -> bool:
        """See `CallObserver`: a function's worker may have the target of an observer called itself."""
        if message.activation is not m.ABSENT:
            self._call_target(peer, message, now)
            return True
        if function is not None:
            if function.observers:
                self._note_start(message, now)
            if _is_told(function):
                message.caller = caller_details(message.caller, peer)
        return False

    def _note_start(self, message: m.InvokeFunction, now: float) -> None:
        id = message.invocation_id or ""
        if id not in self._calls.in_flight:
            self._started[id] = now
            if len(self._started) > MAX_STARTED:
                del self._started[next(iter(self._started))]

    def _call_target(self, peer: Peer, message: m.InvokeFunction, now: float) -> None:
        """Call the target of an observer for the function's worker, which gets the result."""
        try:
            observer = self._observers.get(decode_value(message.activation, type=m.ActivationField).observer_id)
        except ValueError:
            observer = None
        source = None if observer is None else self._router.registry.find(*observer.source)
        is_meant = observer is not None and observer.state == "active" and observer.target[1] == message.function_id
        if observer is None or source is None or peer not in source.providers or not is_meant:
            error = m.ErrorBody(
                "OBSERVER_NOT_ACTIVE", "the observer is not active, or not one of the caller's functions"
            )
            result = m.InvocationResult(message.invocation_id or "", message.function_id, error=encode_error(error))
            if message.invocation_id is not None:
                self._calls.send(peer, encode(result))
            return
        caller = CallerDetails(worker_name=ENGINE_NAME, function_id=source.id, invocation_id=message.invocation_id)
        observer.fires += 1
        call = replace(
            message,
            function_id=observer.target[1],
            namespace=observer.target[0],
            metadata=metadata_of(observer),
            caller=Raw(encode_value(caller)),
            observe_depth=(message.observe_depth or 0) + 1,
            activation=Raw(encode_value(m.ActivationField(observer.id, self._calls.mint_id()))),
        )
        function = self._router.registry.find(*observer.target)
        self._calls.admit_in_full(peer, call, function, callee_line(call), now)
        if observer.definition.max_fires == observer.fires:
            self._delivery.on_fires_used_up(observer)

    # A call ends

    def settle(self, callee: Peer, message: m.InvocationResult, line: bytes) -> None:
        """As `Calls.settle`; then the observers of the function are shown the call."""
        invocation = self._calls.in_flight.get(message.invocation_id)
        if (
            invocation is None
            or invocation.callee is not callee
            or not invocation.function.observers
            or invocation.is_abandoned
        ):
            self._settle(callee, message, line)
            return
        if invocation.function.result_validator is not None:
            message, line = checked_result(invocation, message, line)
        call = invocation.line
        self._settle(callee, message, line)
        if m.is_empty(message.error):
            self._show(invocation, call, "success", {"output": m.or_null(message.result)})
        else:
            self._show(invocation, call, "error", {"error": message.error})

    def ended(self, invocation: Invocation, error: m.ErrorBody) -> None:
        """A call of an observed function has ended without a result. One that its worker never got is not shown."""
        if invocation.callee is not None:
            self._show(invocation, invocation.line, "error", {"error": encode_error(error)})
        else:
            self._started.pop(invocation.id, None)

    def _show(self, invocation: Invocation, line: bytes, status: str, parts: dict[str, Raw]) -> None:
        function, now = invocation.function, self._clock()
        started = self._started.pop(invocation.id, invocation.deadline - invocation.timeout)
        observers = [observer for observer in function.observers if observer.wants(status)]
        if not observers:
            return
        try:
            call = decode(line)
        except ProtocolError:  # of a trusted worker: its callee has refused it as well
            call = m.InvokeFunction(function.id)
        parts["input"] = without_caller_id(m.or_null(call.data))
        parts["caller"] = caller_details(call.caller, invocation.origin)
        if not m.is_empty(call.metadata):
            parts["metadata"] = call.metadata
        duration = max(now - started, 0.0)
        occurrence = Occurrence(
            function.id,
            function.namespace,
            invocation.id,
            status,
            parts,
            int((self._wall_clock() - duration) * 1000),
            round(duration * 1000, 3),
            max(call.observe_depth or 0, self._depth_before(invocation)),
            self._baggage_after(invocation),
        )
        document = OccurrenceDocument(parts)
        for observer in observers:
            try:
                if not observer.filter.matches(document):
                    continue
            except TooManySteps:
                observer.drops["TOO_LARGE"] += 1
                continue
            self._delivery.fire(observer, occurrence)

    def _depth_before(self, invocation: Invocation) -> int:
        """How many activations led to a call, by the calls under way that it comes from."""
        running = self._delivery.running
        call: Invocation | None = invocation
        while call is not None:
            activation: Activation | None = running.get(call.id)
            if activation is not None:
                return activation.depth
            call = call.parent
        return 0

    def _baggage_after(self, invocation: Invocation) -> str:
        """Return baggage that says what led to the activations: so a loop through events or jobs is told as well."""
        causes = self._calls.causes.before(invocation, m.InvokeFunction(invocation.function.id))
        assert causes is not None  # a call always causes something
        return with_causes(None, causes)


def _is_told(function: Function) -> bool:
    """Whether the function's worker learns who has called it."""
    return any(m.OBSERVE in peer.features and peer.rights is None for peer in function.providers)
