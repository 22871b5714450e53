"""The observers of all functions, and the life of each. Pure: clocks and timers are handed in.

Theory of operation. An observer is pending until its function has a worker, every worker of the function that knows
observers has accepted it, and its target exists; then it is active. Whatever may change that (a registration, an
answer, a worker that leaves) ends in `_settle`, which works the state out anew and tells the observer's worker of a
change. The observers of a worker that has left are kept for a while, suspended, for its next connection.

The engine shows active observers the calls that it routes (`observed_calls.py`). What a function's worker has run by
itself, or gives its observers in place of calls, it reports. `delivery.py` calls the targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Raw, Struct

from iii.engine.observing.delivery import Delivery
from iii.engine.observing.legacy_triggers import LegacyTriggers
from iii.engine.observing.observed_calls import ObservedCalls
from iii.engine.observing.observer import (
    Cancellable,
    Key,
    Observer,
    Rejected,
    State,
    definition_from,
    observer_from,
    warnings_of,
)
from iii.engine.observing.occurrence import Occurrence, caller_details
from iii.engine.observing.owners import CompileSchema, Owners, how_observed
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Function
from iii.engine.routing.router import Router
from iii.errors import ErrorCode
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode, encode_error

# Seconds that a function's worker may take to accept an observer, and that the observers of a worker that has left are
# kept (public contract for both).
OWNER_TIMEOUT, RECLAIM_TIMEOUT = 30.0, 30.0
# Observers of all workers, and of one function: each is looked at for every call of it.
MAX_OBSERVERS, MAX_PER_FUNCTION = 10_000, 100
# What one report of a worker may have called: more would hold up the engine.
MAX_FIRES_PER_REPORT = 2_000

DISCONNECTED = m.ErrorBody("OBSERVER_DISCONNECTED", "the observing worker is away")


class ReportedItem(Struct, gc=False):
    """One item of `invocationsobserved`."""

    function_id: str
    invocation_id: str
    namespace: str | None = None
    matched: list[str] = []
    status: str = "success"
    input: Raw = m.ABSENT
    output: Raw = m.ABSENT
    error: Raw = m.ABSENT
    caller: Raw = m.ABSENT
    metadata: Raw = m.ABSENT
    started_at_ms: float = 0
    duration_ms: float = 0.0
    observe_depth: int = 0
    baggage: str | None = None


class LocalStats(Struct, gc=False):
    """One function of `localinvocationstats`."""

    function_id: str
    count: int = 0
    errors: int = 0


class DroppedReports(Struct, gc=False):
    """Reports of one function that its worker had to drop."""

    function_id: str
    reason: str
    count: int = 0


class Observing:
    """All observers. `call_later(seconds, act)` runs `act` later; what it sends then goes out by itself."""

    def __init__(
        self,
        router: Router,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        compile_schema: CompileSchema,
    ) -> None:
        self._router = router
        self._registry = router.registry
        self._calls = router.calls
        self._call_later = call_later
        self.observers: dict[str, Observer] = {}
        self._of_source: dict[Key, list[Observer]] = {}
        self._of_target: dict[Key, list[Observer]] = {}
        self.owners = Owners(router.calls, compile_schema)
        self.delivery = Delivery(router, clock=clock, on_fires_used_up=self._use_up)
        self.observed_calls = ObservedCalls(
            router, self.delivery, self.observers, clock=clock, wall_clock=wall_clock, tracing_changed=self._retell
        )
        self.legacy_triggers = LegacyTriggers(router, self._observe, self._unobserve, clock)
        registrations = router.registrations
        registrations.handlers[m.Observe] = self._observe
        registrations.handlers[m.Unobserve] = self._unobserve
        registrations.on_provided = self._provided
        registrations.on_withdrawn = self._withdrawn
        registrations.on_vacated = self._vacated
        handlers: dict[type, Callable[[Peer, Any], None]] = {
            m.Observe: registrations.receive,
            m.Unobserve: registrations.receive,
            m.ObserverAck: self._acknowledged,
            m.InvocationsObserved: self._reported,
            m.LocalInvocationStats: self._counted,
        }
        router.observe(self.observed_calls, handlers)

    def __repr__(self) -> str:
        active = sum(observer.state == "active" for observer in self.observers.values())
        return f"<Observing {len(self.observers)} observers, {active} active>"

    # Workers that observe

    def _observe(self, peer: Peer, message: m.Observe, legacy: dict[str, Any] | None = None) -> None:
        try:
            observer, is_new = self._observer_for(peer, message)
        except Rejected as rejected:
            answer = m.ObserveResult(message.id, "error", encode_error(rejected.body))
            self._calls.send(peer, encode(answer))
            return
        if is_new:
            observer.legacy = legacy
            self._add(observer)
        if peer not in observer.peers:
            if not observer.peers and observer.patience is not None:
                observer.patience.cancel()
                observer.patience = None
            observer.peers.append(peer)
            observer.worker_name, observer.rights = peer.name, peer.rights
        state, reason = self._state_of(observer)
        self._enter(observer, state, reason)
        error = m.ABSENT if observer.reason is None or state != "error" else encode_error(observer.reason)
        warnings = warnings_of(observer.definition, observer.filter)
        self._calls.send(peer, encode(m.ObserveResult(observer.id, observer.state, error, warnings)))
        self._follow_calls(observer)
        if is_new and not observer.is_over:
            self._ask(observer)
        self._answer_binding(observer)

    def _observer_for(self, peer: Peer, message: m.Observe) -> tuple[Observer, bool]:
        """Return the observer of that id if its own worker asks for the same again, else a new one."""
        definition = definition_from(message)
        known = self.observers.get(message.id)
        if known is not None:
            if not known.is_of(peer):
                raise Rejected("FORBIDDEN", f"observer {message.id} belongs to another worker")
            if known.definition == definition and not known.is_over:
                return known, False
            self._remove(known, m.ErrorBody("UNOBSERVED", "the worker asked for another observer under this id"))
        if len(self.observers) >= MAX_OBSERVERS:
            raise Rejected(ErrorCode.LIMIT_EXCEEDED, f"there are {MAX_OBSERVERS} observers already")
        if len(self._of_source.get(definition.source, ())) >= MAX_PER_FUNCTION:
            text = f"{definition.source[1]} has {MAX_PER_FUNCTION} observers already"
            raise Rejected(ErrorCode.LIMIT_EXCEEDED, text)
        return observer_from(message.id, definition, peer), True

    def _add(self, observer: Observer) -> None:
        self.observers[observer.id] = observer
        self._of_source.setdefault(observer.source, []).append(observer)
        self._of_target.setdefault(observer.target, []).append(observer)
        if (milliseconds := observer.definition.expires_in_ms) is not None:
            expired = m.ErrorBody("EXPIRED", f"the {milliseconds:g} ms of the observer are over")
            observer.expiry = self._call_later(milliseconds / 1000, lambda: self._dispose(observer, expired))

    def _answer_binding(self, observer: Observer) -> None:
        """Take the binding that an observer comes from, once nobody has to be asked about it any more."""
        function = self._registry.find(*observer.source)
        unasked = set() if function is None else set(self.owners.askable(function)) - observer.accepted_by
        if observer.legacy is not None and not observer.is_over and not unasked:
            self.legacy_triggers.accepted(observer.id)

    def _unobserve(self, peer: Peer, message: m.Unobserve) -> None:
        observer = self.observers.get(message.id)
        if observer is not None and observer.is_of(peer):
            self._dispose(observer, m.ErrorBody("UNOBSERVED", "disposed by the observing worker"))

    def _use_up(self, observer: Observer) -> None:
        text = f"the observer has fired {observer.fires} times"
        self._dispose(observer, m.ErrorBody("MAX_FIRES", text), keeps_waiting=True)

    def _dispose(self, observer: Observer, reason: m.ErrorBody, *, keeps_waiting: bool = False) -> None:
        """End an observer, and tell its worker. `keeps_waiting`: what it has been shown already is delivered."""
        self._enter(observer, "disposed", reason)
        self._tell_state(observer)
        self._remove(observer, reason, keeps_waiting=keeps_waiting)

    def _remove(self, observer: Observer, reason: m.ErrorBody, *, keeps_waiting: bool = False) -> None:
        self._enter(observer, "disposed", reason)
        if self.observers.pop(observer.id, None) is None:
            return
        for timer in (observer.expiry, observer.patience):
            if timer is not None:
                timer.cancel()
        for table, key in ((self._of_source, observer.source), (self._of_target, observer.target)):
            table[key].remove(observer)
            if not table[key]:
                del table[key]
        if not keeps_waiting:
            self.delivery.drop_waiting(observer)
        self._follow_calls(observer)
        if (function := self._registry.find(*observer.source)) is not None:
            self.owners.tell_removed(function, observer)

    # The state of an observer

    def _state_of(self, observer: Observer) -> tuple[State, m.ErrorBody | None]:
        """Work out in which state an observer is now, and why."""
        if observer.is_over:
            return observer.state, observer.reason
        function = self._registry.find(*observer.source)
        is_provided = function is not None and (function.providers or function.owner.keeps_vacancies)
        if function is not None and is_provided:
            try:
                self.owners.check(observer, function)
            except Rejected as rejected:
                return "error", rejected.body
        if not observer.peers:
            return "suspended", DISCONNECTED
        if function is None or not is_provided or set(self.owners.askable(function)) - observer.accepted_by:
            return "pending", None
        if self._registry.find(*observer.target) is None:
            missing = m.ErrorBody("TARGET_UNAVAILABLE", f"the target {observer.target[1]} is away")
            return ("suspended", missing) if observer.has_been_active else ("pending", None)
        return "active", None

    def _settle(self, observer: Observer) -> None:
        """Bring an observer into the state in which it is now, and tell its worker of a change."""
        state, reason = self._state_of(observer)
        if (state, reason) != (observer.state, observer.reason):
            self._enter(observer, state, reason)
            self._tell_state(observer)
            self._follow_calls(observer)

    def _enter(self, observer: Observer, state: State, reason: m.ErrorBody | None) -> None:
        observer.state, observer.reason = state, reason
        if state == "active":
            observer.has_been_active = True
            self.delivery.go_on(observer)
        elif state == "error":
            self.delivery.drop_waiting(observer)
        if observer.patience is not None and observer.peers and state != "pending":
            observer.patience.cancel()
            observer.patience = None

    def _tell_state(self, observer: Observer) -> None:
        reason = m.ABSENT if observer.reason is None else encode_error(observer.reason)
        line = encode(m.ObserverStateChanged(observer.id, observer.state, reason, observer.fires))
        for peer in observer.peers:
            self._calls.send(peer, line)

    def _follow_calls(self, observer: Observer) -> None:
        """Show the observer the calls of its function, or no longer."""
        if (function := self._registry.find(*observer.source)) is not None:
            self._show_calls(function)

    def _show_calls(self, function: Function) -> None:
        shown: tuple[Observer, ...] = ()
        observers = self._of_source.get((function.namespace, function.id))
        if observers and how_observed(function).delivery != "owner":
            # To suspended ones too, which only count what they miss.
            shown = tuple(observer for observer in observers if observer.state in ("active", "suspended"))
        function.observers = shown
        self.observed_calls.follow(function, has_workers=bool(self.owners.told))

    # Workers of observed functions

    def identified(self, peer: Peer) -> None:
        """The peer has said what it knows: tell it of the functions that it had registered before."""
        if self.owners.knows(peer):
            for function in list(peer.functions):
                if peer in function.providers and function not in self.owners.told.get(peer, ()):
                    self._provided(peer, function)

    def _observers_of(self, function: Function) -> list[Observer]:
        return list(self._of_source.get((function.namespace, function.id), ()))

    def _provided(self, peer: Peer, function: Function) -> None:
        observers = self._observers_of(function)
        for observer in observers:
            observer.accepted_by.discard(peer)
            self._settle(observer)
        if self.owners.knows(peer):
            asked = [observer for observer in observers if not observer.is_over]
            self.owners.tell_all(peer, function, asked)
            for observer in asked:
                self._await_answer(observer)
        self._show_calls(function)
        self._settle_targeting(function)
        self.legacy_triggers.provide(peer, function)

    def _settle_targeting(self, function: Function) -> None:
        for observer in list(self._of_target.get((function.namespace, function.id), ())):
            self._settle(observer)

    def _withdrawn(self, peer: Peer, function: Function) -> None:
        self.owners.forget(peer, function)
        observers = self._observers_of(function)
        for observer in observers:
            observer.accepted_by.discard(peer)
        names_type = how_observed(function).legacy_trigger_type is not None
        if observers or names_type or (function.namespace, function.id) in self._of_target:
            # Whether another peer takes the function over is decided right after this.
            self._call_later(0, lambda: self._look_again(function))
        self.observed_calls.follow(function, has_workers=bool(self.owners.told))

    def _look_again(self, function: Function) -> None:
        self.legacy_triggers.settle()
        for observer in self._observers_of(function):
            self._settle(observer)
        self._settle_targeting(function)

    def _vacated(self, peer: Peer) -> None:
        """A peer has left the routes: keep its observers for its next connection."""
        self.owners.forget(peer)
        for observer in [observer for observer in self.observers.values() if peer in observer.peers]:
            observer.peers.remove(peer)
            if observer.peers:
                continue  # another process of the worker has asked for it too
            if observer.patience is not None:
                observer.patience.cancel()
            observer.patience = self._call_later(RECLAIM_TIMEOUT, _removal(self, observer))
            self._settle(observer)

    def _ask(self, observer: Observer) -> None:
        function = self._registry.find(*observer.source)
        if function is not None:
            self.owners.tell_added(function, observer)
            self._await_answer(observer)

    def _await_answer(self, observer: Observer) -> None:
        if observer.state != "pending" or observer.patience is not None:
            return
        late = m.ErrorBody("OWNER_TIMEOUT", f"{observer.source[1]} has not answered within {OWNER_TIMEOUT:g} s")

        def give_up() -> None:
            observer.patience = None
            function = self._registry.find(*observer.source)
            if function is not None and set(self.owners.askable(function)) - observer.accepted_by:
                self._fail(observer, late)

        observer.patience = self._call_later(OWNER_TIMEOUT, give_up)

    def _fail(self, observer: Observer, error: m.ErrorBody) -> None:
        self._enter(observer, "error", error)
        self._tell_state(observer)
        self._follow_calls(observer)

    def _acknowledged(self, peer: Peer, message: m.ObserverAck) -> None:
        observer = self.observers.get(message.id)
        function = None if observer is None else self._registry.find(*observer.source)
        if observer is None or function is None or peer not in function.providers or observer.state == "disposed":
            return
        if not m.is_empty(message.error):
            try:
                self._fail(observer, decode_value(message.error, type=m.ErrorBody))
            except ValueError:
                self._fail(observer, m.ErrorBody("OBSERVE_REJECTED", "refused by the function's worker"))
        elif not observer.is_over:
            observer.accepted_by.add(peer)
            self._settle(observer)
            self._answer_binding(observer)

    def _retell(self) -> None:
        """Whether calls are traced has changed: with it, whether workers may run their own calls themselves."""
        for peer, functions in list(self.owners.told.items()):
            for function, was_local in list(functions.items()):
                if was_local is not (self.owners.why_not_local(peer, function) is None):
                    observers = [one for one in self._observers_of(function) if not one.is_over]
                    self.owners.tell_all(peer, function, observers)

    # What workers report

    def _reported(self, peer: Peer, message: m.InvocationsObserved) -> None:
        left = MAX_FIRES_PER_REPORT
        for raw in message.items:
            try:
                item = decode_value(raw, type=ReportedItem)
            except ValueError:
                self._calls.counters["observe_unreadable"] += 1
                continue
            occurrence = self._occurrence_from(item, peer)
            for id in dict.fromkeys(item.matched[:MAX_PER_FUNCTION]):
                observer = self.observers.get(id)
                function = None if observer is None else self._registry.find(*observer.source)
                if observer is None or function is None or peer not in function.providers:
                    self._calls.counters["observe_inactive"] += 1
                elif left == 0:
                    observer.drops["BUFFER_FULL"] += 1
                else:
                    left -= 1
                    occurrence.namespace, occurrence.function_id = observer.source
                    self.delivery.fire(observer, occurrence)

    def _occurrence_from(self, item: ReportedItem, peer: Peer) -> Occurrence:
        names = ("input", "output", "error", "metadata")
        parts = {name: getattr(item, name) for name in names if getattr(item, name) is not m.ABSENT}
        if item.caller is not m.ABSENT:
            parts["caller"] = caller_details(item.caller, peer)
        started, duration, depth = int(item.started_at_ms), item.duration_ms, max(item.observe_depth, 0)
        key = item.function_id, peer.namespace, item.invocation_id
        return Occurrence(*key, item.status, parts, started, duration, depth, item.baggage)

    def _counted(self, peer: Peer, message: m.LocalInvocationStats) -> None:
        for stats in _decoded(message.functions, LocalStats):
            function = self._registry.find(peer.namespace, stats.function_id)
            if function is not None and peer in function.providers:
                function.answered += max(stats.count, 0)
                function.failed += max(stats.errors, 0)
        for dropped in _decoded(message.dropped_reports, DroppedReports):
            function = self._registry.find(peer.namespace, dropped.function_id)
            if function is not None and peer in function.providers and dropped.reason in _DROP_REASONS:
                for observer in self._observers_of(function):
                    observer.drops[dropped.reason] += max(dropped.count, 0)


_DROP_REASONS = ("BUFFER_FULL", "TOO_LARGE", "INACTIVE", "LOOP_GUARD")


def _removal(observing: Observing, observer: Observer) -> Callable[[], None]:
    return lambda: observing._remove(observer, DISCONNECTED)


def _decoded(items: Iterable[Raw], kind: type[Any]) -> Iterator[Any]:
    for raw in items:
        try:
            yield decode_value(raw, type=kind)
        except ValueError:
            continue
