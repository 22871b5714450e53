"""Trigger types that a function names as its own old ones (`legacy_trigger_type`): bindings become its observers. Pure.

One peer of the engine provides these types. A binding that it is asked to take becomes an observer of the function, by
the binding's id: the config goes along as `args`, where the function's worker takes some, and as `legacy`. The bound
function gets what the worker emits, or a call's payload, without an envelope, as from a provider of triggers. When the
observer fails, the binding is refused with its error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Raw

from iii.engine.observing.occurrence import ENGINE_NAME
from iii.engine.observing.owners import how_observed
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Function
from iii.engine.routing.router import Router
from iii.errors import ErrorCode
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode, encode_error, encode_value


class Observe(Protocol):
    """Takes an observer with the binding that it comes from: its trigger type and config."""

    def __call__(self, peer: Peer, message: m.Observe, legacy: dict[str, Any]) -> None: ...


class LegacyTriggers:
    """The types, and the bindings that have become observers. `clock()` is monotonic seconds."""

    def __init__(
        self,
        router: Router,
        observe: Observe,
        unobserve: Callable[[Peer, m.Unobserve], None],
        clock: Callable[[], float],
    ) -> None:
        self._router = router
        self._observe = observe
        self._unobserve = unobserve
        self._clock = clock
        self._functions: dict[tuple[str, str], Function] = {}  # by namespace and trigger type
        self._bound: dict[str, m.RegisterTrigger] = {}
        self._unanswered: set[str] = set()  # bindings that the function's worker has not accepted yet
        self.peer = Peer("legacy-triggers", kind="engine", name=ENGINE_NAME, flush=self._read_outbox)

    def provide(self, peer: Peer, function: Function) -> None:
        """A peer provides a function: provide the trigger type that it names, and no longer one that it named before.

        A session's function names none: that it may provide a trigger type is for its rules to say.
        """
        named = how_observed(function).legacy_trigger_type if peer.rights is None else None
        self._withdraw_all(lambda key: self._functions[key] is function and key[1] != named)
        key = function.namespace, named or ""
        if not named or self._functions.get(key) is function:
            return
        self._withdraw_all(lambda each: each == key)  # so that its bindings move to this function
        if self.peer.id not in self._router.peer_table.peers:
            self._router.peer_table.attach(self.peer)
        self._functions[key] = function
        description = f"Observers of {function.id}"
        self._receive(m.RegisterTriggerType(named, description, namespace=function.namespace))

    def settle(self) -> None:
        """Functions have left: withdraw the types of those that are gone."""
        registry = self._router.registry
        self._withdraw_all(
            lambda key: (
                registry.find(self._functions[key].namespace, self._functions[key].id) is not self._functions[key]
            )
        )

    def _withdraw_all(self, is_over: Callable[[tuple[str, str]], bool]) -> None:
        for namespace, trigger_type in [key for key in self._functions if is_over(key)]:
            del self._functions[namespace, trigger_type]
            registrations = self._router.registrations
            registrations.send_all(self._router.bindings.withdraw(self.peer, trigger_type, namespace))

    def _receive(self, message: m.Message) -> None:
        self._router.receive(self.peer, message, encode(message), self._clock())

    def _read_outbox(self) -> None:
        for message in self._router.calls.take_messages(self.peer):
            if isinstance(message, m.RegisterTrigger):
                self._bind(message)
            elif isinstance(message, m.UnregisterTrigger):
                self._bound.pop(message.id, None)
                self._unanswered.discard(message.id)
                self._unobserve(self.peer, m.Unobserve(message.id))
            elif isinstance(message, m.ObserveResult | m.ObserverStateChanged):
                self._take_state(message)

    def _bind(self, message: m.RegisterTrigger) -> None:
        binding = self._router.bindings.find(message.id)
        trigger_type = None if binding is None else self._router.bindings.type_of(binding)
        function = None if trigger_type is None else self._functions.get((trigger_type.namespace, trigger_type.id))
        if binding is None or function is None:
            return  # withdrawn meanwhile, which the outbox says next
        is_owned = how_observed(function).delivery == "owner"
        config = decode_value(m.or_null(message.config))
        source: dict[str, Any] = {"function_id": function.id, "namespace": function.namespace, "deliver": "input"}
        if is_owned and isinstance(config, dict):
            source["args"] = config
        target = {"function_id": message.function_id, "namespace": message.namespace}
        self._bound[message.id] = message
        self._unanswered.add(message.id)
        if binding.rights is not None and not is_owned:
            text = f"{function.id} would show a session the calls of others; only what its worker emits may be bound to"
            self._answer(message.id, encode_error(m.ErrorBody(ErrorCode.FORBIDDEN, text)))
            del self._bound[message.id]
            return
        observe = m.Observe(message.id, Raw(encode_value(source)), Raw(encode_value(target)), message.metadata)
        self._observe(self.peer, observe, {"trigger_type": message.trigger_type, "config": config})

    def accepted(self, id: str) -> None:
        """The function's worker has accepted an observer: the binding is taken."""
        if id in self._unanswered:
            self._answer(id)

    def _take_state(self, message: m.ObserveResult | m.ObserverStateChanged) -> None:
        if message.id not in self._bound or message.state != "error":
            return
        error = message.error if isinstance(message, m.ObserveResult) else message.reason
        self._answer(message.id, error)
        del self._bound[message.id]
        self._unobserve(self.peer, m.Unobserve(message.id))

    def _answer(self, id: str, error: Raw = m.ABSENT) -> None:
        self._unanswered.discard(id)
        bound = self._bound[id]
        self._receive(m.TriggerRegistrationResult(id, bound.trigger_type, bound.function_id, error))
