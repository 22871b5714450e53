"""What a peer may register, and what becomes of it when the peer goes. Pure.

One handler a message. `apply` is called for a serving peer at once, for a new generation at its promotion; `vacate`
takes a peer out of every table and settles what only it provided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iii.engine.routing import error_bodies
from iii.engine.routing.bindings import Binding, Bindings, Outgoing
from iii.engine.routing.calls import Calls
from iii.engine.routing.events import FunctionsChanged, HttpFunctionRegistered, Notice
from iii.engine.routing.http_function_proxy import HttpFunctionProxy
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.registry import Function, Registry, Validator, check_id
from iii.errors import ErrorCode, InvocationError
from iii.protocol import messages as m
from iii.protocol.codec import encode, encode_error

# Makes the check of one function's payloads from its request format; raises InvocationError for a bad schema.
CompileSchema = Callable[[m.RegisterFunction], "Validator | None"]


class Registrations:
    """The handlers of register and unregister messages."""

    def __init__(self, registry: Registry, bindings: Bindings, calls: Calls, compile_schema: CompileSchema) -> None:
        self._registry = registry
        self._bindings = bindings
        self._calls = calls
        self._compile_schema = compile_schema
        self._relays: dict[Peer, HttpFunctionProxy] = {}  # who stands for the HTTP-invoked functions of a peer
        self.handlers: dict[type, Callable[[Peer, Any], None]] = {
            m.RegisterFunction: self._register_function,
            m.UnregisterFunction: self._unregister_function,
            m.RegisterTriggerType: self._register_trigger_type,
            m.UnregisterTriggerType: self._unregister_trigger_type,
            m.RegisterTrigger: self._register_trigger,
            m.UnregisterTrigger: self._unregister_trigger,
            m.RegisterAction: self._register_action,
            m.UnregisterAction: self._unregister_action,
        }

    def receive(self, peer: Peer, message: Any) -> None:
        """Apply a registration of a serving peer; keep that of a new generation until it is promoted."""
        if peer.is_serving:
            self.handlers[type(message)](peer, message)
        elif not peer.is_retired:
            peer.staged.append(message)

    def apply_staged(self, peer: Peer) -> None:
        """Apply, in order, what a new generation registered before it served; drop what it no longer has."""
        staged, peer.staged = peer.staged, []
        for message in staged:
            self.handlers[type(message)](peer, message)
        self.send_all(self._bindings.forget_gone(peer.owner))
        self.drop_vacancies(peer.owner, "removed by reload")

    def _register_function(self, peer: Peer, message: m.RegisterFunction) -> None:
        try:
            validator = self._compile_schema(message) if peer.owner.is_validated else None
            claimed = self._registry.claim(peer, message, validator)
        except InvocationError as error:
            self._reject(peer, message.id, error.code, error.message)
            return
        if claimed is None:
            owner = self._registry.find(peer.namespace, message.id)
            holder = owner.providers[0].id if owner and owner.providers else ""
            self._reject(
                peer,
                message.id,
                ErrorCode.FUNCTION_NAMESPACE_CONFLICT,
                f"{message.id} belongs to worker {owner.owner.name if owner else '?'}",
                holder,
            )
            return
        self._seat_relay(peer, claimed)
        self._calls.events.append(FunctionsChanged())
        self._calls.claim()

    def _seat_relay(self, peer: Peer, function: Function) -> None:
        """A function that lives behind a URL is run by the peer's relay; the peer only has it."""
        relay = self._relays.get(peer)
        invocation = function.declaration.invocation
        if not m.is_empty(invocation):
            relay = self._relays[peer] = relay or HttpFunctionProxy(peer, self._calls)
            function.remove_provider(peer)
            function.add_provider(relay)
            peer.functions[function] = None
            self._calls.events.append(HttpFunctionRegistered(peer, function.id, invocation))
        elif relay is not None:
            function.remove_provider(relay)

    def _reject(self, peer: Peer, function_id: str, code: str, why: str, holder: str = "") -> None:
        conflict = ErrorCode.FUNCTION_NAMESPACE_CONFLICT
        rejection = m.RegistrationRejected(conflict, peer.namespace, holder, function_id=function_id)
        if code != conflict:
            rejection.reason, rejection.message = code, why
        self._calls.send(peer, encode(rejection))
        self._calls.events.append(Notice(peer.name, f"function not registered: {why}", code))

    def _unregister_function(self, peer: Peer, message: m.UnregisterFunction) -> None:
        self.withdraw(peer, message.id, "unregistered")

    def withdraw(self, peer: Peer, function_id: str, why: str) -> None:
        """The peer has this function no more; one that it does not have stays."""
        function = self._registry.find(peer.namespace, function_id)
        if function is not None:
            self._remove(peer, function)
            self.settle_vacancy(function, why)

    def _remove(self, peer: Peer, function: Function) -> None:
        function.remove_provider(peer)
        if peer in self._relays:
            function.remove_provider(self._relays[peer])

    def _register_trigger_type(self, peer: Peer, message: m.RegisterTriggerType) -> None:
        self.send_all(self._bindings.provide(message, peer))

    def _unregister_trigger_type(self, peer: Peer, message: m.UnregisterTriggerType) -> None:
        self.send_all(self._bindings.withdraw(peer, message.id, message.namespace))

    def _register_trigger(self, peer: Peer, message: m.RegisterTrigger) -> None:
        for field in ("namespace", "trigger_namespace"):
            value = getattr(message, field)
            if value is not None and not value.strip():
                error = encode_error(error_bodies.blank_namespace(field))
                answer = m.TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, error)
                self._calls.send(peer, encode(answer))
                return
        binding = Binding(message, peer)
        adopts = peer.owner.is_supervised
        self.send_all(self._bindings.adopt(binding, peer) if adopts else self._bindings.bind(binding))

    def _unregister_trigger(self, peer: Peer, message: m.UnregisterTrigger) -> None:
        self.send_all(self._bindings.release(message.id, peer))

    def _register_action(self, peer: Peer, message: m.RegisterAction) -> None:
        try:
            check_id(message.id)
        except InvocationError as error:
            self._reject(peer, message.id, error.code, error.message)
            return
        self._registry.provide_action(message, peer)

    def _unregister_action(self, peer: Peer, message: m.UnregisterAction) -> None:
        if message.id in self._registry.actions:
            self._registry.withdraw_action(message.id, peer)

    def send_all(self, outgoing: Outgoing) -> None:
        for peer, message in outgoing:
            self._calls.send(peer, encode(message))

    def settle_vacancy(self, function: Function, why: str) -> None:
        """A provider left the function: promote a standby, keep the place, or forget the function."""
        if function.providers:
            return
        owner = function.owner
        if owner.is_supervised and not owner.peers and (owner.is_expected or owner.refusal):
            return
        waiting = self._calls.unqueue(function)
        self._registry.drop(function)
        self._calls.events.append(FunctionsChanged())
        self._promote_standby(function)
        for invocation in waiting:
            if self._registry.find(function.namespace, function.id) is not None:
                self._calls.place(invocation)
            else:
                self._calls.fail(invocation, error_bodies.not_found(function, self._registry, why))

    def _promote_standby(self, function: Function) -> None:
        standbys, function.standbys = function.standbys, []
        for peer, declaration in standbys:
            peer.functions.pop(function, None)
            if not peer.is_gone and peer.is_serving:
                self._register_function(peer, declaration)

    def drop_vacancies(self, owner: Owner, why: str) -> None:
        """Forget what the owner does not provide, and is not expected to provide again."""
        for id, action in list(self._registry.actions.items()):
            if action.owner is owner and action.is_vacant:
                del self._registry.actions[id]
        for function in [function for function in self._registry if function.owner is owner]:
            if not function.providers:
                self.settle_vacancy(function, why)

    def vacate(self, peer: Peer, why: str) -> None:
        """Take the peer out of all tables; what only it provided is settled."""
        owner = peer.owner
        owner.peers.remove(peer)
        for function in list(peer.functions):
            self._remove(peer, function)
            self.settle_vacancy(function, why)
        self._relays.pop(peer, None)
        for id in list(self._registry.actions):
            self._registry.withdraw_action(id, peer)
        if not owner.is_expected:  # else the next generation says which of them it wants
            self.send_all(self._bindings.forget_binder(peer))
        self.send_all(self._bindings.forget_provider(peer))
        self._calls.pump(owner)  # nobody may be left to wait for
        self._calls.events.append(FunctionsChanged())
