"""Calls the targets of observers. Pure.

The calls are those of one peer that lives in the engine. An observer has a bounded number of them under way, and of
bytes; what comes beyond waits in its queue, and beyond that is dropped and counted. Nothing here decides which call an
observer is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw, Struct

from iii.engine.observing.observer import Observer
from iii.engine.observing.occurrence import ENGINE_NAME, CallerDetails, Occurrence
from iii.engine.routing.budget import Account
from iii.engine.routing.message_forms import callee_line
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.protocol import messages as m
from iii.protocol.codec import encode_value

# A call for an observer may lead to another one; so many in a row are made (public contract).
MAX_DEPTH = 8
# Activations under way, of one observer and of all.
MAX_RUNNING, MAX_RUNNING_TOTAL = 256, 4096
# Bytes of those of one observer: a target reads them one after the other, and its outbox has a bound too.
MAX_RUNNING_BYTES, MAX_RUNNING_BYTES_TOTAL = 4 * 1024 * 1024, 64 * 1024 * 1024
# What waits for one observer, and the bytes of what waits for all (public contract for the first two).
MAX_WAITING, MAX_WAITING_BYTES, MAX_WAITING_TOTAL = 10_000, 8 * 1024 * 1024, 64 * 1024 * 1024
# Bytes that an occurrence costs beside its parts.
OVERHEAD = 1024


class Activation(Struct, gc=False, eq=False):
    """A call of a target that is under way."""

    observer: Observer
    depth: int
    size: int


class Delivery:
    """The activations of all observers. `clock()` is monotonic seconds, `on_fires_used_up(observer)` ends one."""

    def __init__(
        self, router: Router, *, clock: Callable[[], float], on_fires_used_up: Callable[[Observer], None]
    ) -> None:
        self._router = router
        self._calls = router.calls
        self._clock = clock
        self.on_fires_used_up = on_fires_used_up
        self.running: dict[str, Activation] = {}
        self._running_bytes = 0
        self._held = Account()  # what waits
        self._held_back: dict[Observer, None] = {}  # they wait for room that others take
        self.peer = Peer("observers", kind="engine", name=ENGINE_NAME, flush=self._take_results)

    def fire(self, observer: Observer, occurrence: Occurrence) -> bool:
        """Call the observer's target for an occurrence, now or in its turn; count it as dropped, or as fired."""
        if not occurrence.size:
            occurrence.size = OVERHEAD + sum(len(part) for part in occurrence.parts.values())
        reason = self._reason_to_drop(observer, occurrence)
        if reason is not None:
            observer.drops[reason] += 1
            return False
        observer.fires += 1
        if observer.waiting or not self._has_room(observer, occurrence):
            observer.waiting.append(occurrence)
            observer.waiting_bytes += occurrence.size
            self._calls.budget.hold(self._held, occurrence.size)
            if not observer.in_flight:
                self._held_back[observer] = None
        else:
            self._call(observer, occurrence)
        if observer.definition.max_fires == observer.fires:
            self.on_fires_used_up(observer)
        return True

    def _reason_to_drop(self, observer: Observer, occurrence: Occurrence) -> str | None:
        if observer.state != "active":
            return "INACTIVE"
        if occurrence.depth >= MAX_DEPTH:
            return "LOOP_GUARD"
        if occurrence.size > MAX_WAITING_BYTES:
            return "TOO_LARGE"
        is_full = (
            len(observer.waiting) >= MAX_WAITING
            or observer.waiting_bytes + occurrence.size > MAX_WAITING_BYTES
            or self._held.held + occurrence.size > MAX_WAITING_TOTAL
        )
        return "BUFFER_FULL" if is_full else None

    def _has_room(self, observer: Observer, occurrence: Occurrence) -> bool:
        most = min(observer.definition.max_in_flight or MAX_RUNNING, MAX_RUNNING)
        has_bytes = not observer.in_flight or observer.running_bytes + occurrence.size <= MAX_RUNNING_BYTES
        return observer.in_flight < most and has_bytes and self._has_room_for_all(occurrence.size)

    def _has_room_for_all(self, size: int) -> bool:
        is_small = not self.running or self._running_bytes + size <= MAX_RUNNING_BYTES_TOTAL
        return is_small and len(self.running) < MAX_RUNNING_TOTAL

    def _call(self, observer: Observer, occurrence: Occurrence) -> None:
        if self.peer.id not in self._router.peer_table.peers:
            self._router.peer_table.attach(self.peer)  # as late as the first of all activations
        id = self._calls.mint_id()
        activation_id = self._calls.mint_id()
        caller = CallerDetails(
            worker_name=ENGINE_NAME, function_id=occurrence.function_id, invocation_id=occurrence.invocation_id
        )
        message = m.InvokeFunction(
            observer.target[1],
            invocation_id=id,
            data=payload_of(observer, occurrence, activation_id),
            metadata=metadata_of(observer),
            caller=Raw(encode_value(caller)),
            observe_depth=occurrence.depth + 1,
            activation=Raw(encode_value(m.ActivationField(observer.id, activation_id))),
            baggage=occurrence.baggage,
            namespace=observer.target[0],
        )
        observer.in_flight += 1
        observer.running_bytes += occurrence.size
        self._running_bytes += occurrence.size
        self.running[id] = Activation(observer, occurrence.depth + 1, occurrence.size)
        function = self._router.registry.find(*observer.target)
        self._calls.admit_in_full(self.peer, message, function, callee_line(message), self._clock())

    def _take_results(self) -> None:
        for message in self._calls.take_messages(self.peer):
            activation = self.running.pop(message.invocation_id, None) if _is_result(message) else None
            if activation is not None:
                observer = activation.observer
                observer.in_flight -= 1
                observer.running_bytes -= activation.size
                self._running_bytes -= activation.size
                observer.failed += not m.is_empty(message.error)
                self.go_on(observer)
        for observer in list(self._held_back):
            if self._has_room_for_all(observer.waiting[0].size if observer.waiting else 0):
                del self._held_back[observer]
                self.go_on(observer)

    def go_on(self, observer: Observer) -> None:
        """Call the target for what waits, as far as there is room, unless the target or the worker is away."""
        if observer.state not in ("active", "disposed"):
            return
        while observer.waiting and self._has_room(observer, observer.waiting[0]):
            occurrence = observer.waiting.popleft()
            self._release(observer, occurrence.size)
            self._call(observer, occurrence)
        if observer.waiting and not observer.in_flight:
            self._held_back[observer] = None

    def _release(self, observer: Observer, size: int) -> None:
        observer.waiting_bytes -= size
        self._calls.budget.release(self._held, size)

    def drop_waiting(self, observer: Observer) -> None:
        """The observer gets nothing more: what waits for it is dropped and counted."""
        if observer.waiting:
            observer.drops["INACTIVE"] += len(observer.waiting)
        self._release(observer, observer.waiting_bytes)
        observer.waiting.clear()
        self._held_back.pop(observer, None)


def payload_of(observer: Observer, occurrence: Occurrence, activation_id: str) -> Raw:
    """Return what the observer's target gets."""
    deliver, parts = observer.definition.deliver, occurrence.parts
    if deliver != "envelope":
        return parts.get(deliver, m.NULL)
    envelope: dict[str, Any] = {
        "observer_id": observer.id,
        "activation_id": activation_id,
        "function_id": occurrence.function_id,
        "namespace": occurrence.namespace,
        "invocation_id": occurrence.invocation_id,
        "status": occurrence.status,
    }
    envelope |= {name: parts[name] for name in observer.definition.capture if name in parts}
    return Raw(
        encode_value(envelope | {"started_at_ms": occurrence.started_at_ms, "duration_ms": occurrence.duration_ms})
    )


def metadata_of(observer: Observer) -> Raw:
    """Return the sidecar of the observer's activations."""
    metadata = observer.definition.metadata
    return m.ABSENT if metadata is None else Raw(encode_value(metadata))


def _is_result(message: m.Message) -> bool:
    return isinstance(message, m.InvocationResult)
