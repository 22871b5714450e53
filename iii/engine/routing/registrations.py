"""What peers register, and what becomes of it when a peer goes. Pure.

`receive` applies a registration of a serving peer at once; `apply_staged` applies those of a new generation at its
promotion. `vacate` takes a peer out of every table and settles what only it provided.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iii.engine.routing import error_bodies
from iii.engine.routing.bindings import Binding, Bindings, Outgoing
from iii.engine.routing.calls import Calls
from iii.engine.routing.events import FunctionsChanged, HttpFunctionRegistered, Notice
from iii.engine.routing.http_function_proxy import HttpFunctionProxy
from iii.engine.routing.message_forms import MAX_NAME, malformed_name
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.quota import Quota
from iii.engine.routing.registry import Function, Registry, Validator
from iii.errors import ErrorCode, InvocationError
from iii.protocol import messages as m
from iii.protocol.codec import encode, encode_error

# Returns the check of a function's payloads, made from its request format; InvocationError for a bad schema.
CompileSchema = Callable[[m.RegisterFunction], "Validator | None"]

# Refusals of one session that the log shows; more are only counted.
MAX_REFUSAL_NOTICES = 20


class Registrations:
    """Applies the messages by which peers register and unregister."""

    def __init__(
        self,
        registry: Registry,
        bindings: Bindings,
        calls: Calls,
        compile_schema: CompileSchema,
        compile_result_schema: CompileSchema,
    ) -> None:
        self._registry = registry
        self._bindings = bindings
        self._calls = calls
        self._compile_schema = compile_schema
        self._compile_result_schema = compile_result_schema
        self.quota = Quota(calls.budget)
        # Hear that a serving peer provides a function from now on, or no longer, and that a peer has left the routes.
        self.on_provided: Callable[[Peer, Function], None] = lambda *_: None
        self.on_withdrawn: Callable[[Peer, Function], None] = lambda *_: None
        self.on_vacated: Callable[[Peer], None] = lambda _: None
        self._http_proxies: dict[Peer, HttpFunctionProxy] = {}  # of peers with functions that live behind a URL
        self.handlers: dict[type, Callable[[Peer, Any], None]] = {
            m.RegisterFunction: self._register_function,
            m.UnregisterFunction: lambda peer, message: self.withdraw(peer, message.id, "unregistered"),
            m.RegisterTriggerType: self._register_trigger_type,
            m.UnregisterTriggerType: lambda peer, message: self.send_all(
                bindings.withdraw(peer, message.id, message.namespace)
            ),
            m.RegisterTrigger: self._register_trigger,
            m.UnregisterTrigger: lambda peer, message: self.send_all(bindings.release(message.id, peer)),
            m.RegisterAction: self._register_action,
            m.UnregisterAction: lambda peer, message: registry.withdraw_action(message.id, peer),
        }

    def receive(self, peer: Peer, message: Any) -> None:
        """Apply a registration of a serving peer; keep that of a new generation until it is promoted."""
        why_not = self.quota.refusal(peer, message)
        if why_not is not None:
            self._refuse_beyond_quota(peer, message, why_not)
        elif peer.is_serving:
            self._apply(peer, message)
        elif not peer.is_retired:
            peer.staged.append(message)

    def apply_staged(self, peer: Peer) -> None:
        """Apply, in order, what a new generation registered before it served; drop what it no longer has."""
        staged, peer.staged = peer.staged, []
        for message in staged:
            self._apply(peer, message)
        self.send_all(self._bindings.forget_gone(peer.owner))
        self.drop_vacancies(peer.owner, "removed by reload")

    def _apply(self, peer: Peer, message: Any) -> None:
        """Apply one registration, unless a name in it is malformed, or a session may not make it at this moment."""
        why = malformed_name(message) if peer.rights is None else peer.rights.refusal(message)
        if why is None:
            self.handlers[type(message)](peer, message)
        else:
            self.refuse(peer, message, why)

    def refuse(self, peer: Peer, message: Any, why: str) -> None:
        """Refuse a registration, or another message: with an answer if the protocol has one, and a line in the log."""
        code = ErrorCode.INVALID_MESSAGE if peer.rights is None else ErrorCode.FORBIDDEN
        if isinstance(message, m.RegisterFunction):
            self._reject(peer, message.id, code, why)
        elif isinstance(message, m.RegisterTrigger):
            error = encode_error(m.ErrorBody(code, why))
            answer = m.TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, error)
            self._calls.send(peer, encode(answer))
        elif isinstance(message, m.Observe):
            error = encode_error(m.ErrorBody(code, why))
            self._calls.send(peer, encode(m.ObserveResult(message.id, "error", error)))
        if peer.rights is not None:
            self._calls.counters["dropped_by_rules"] += 1
            peer.owner.refusals += 1
            if peer.owner.refusals > MAX_REFUSAL_NOTICES:
                return  # a session cannot fill the log; the count goes on
        name = str(getattr(message, "id", None) or getattr(message, "function_id", ""))[:MAX_NAME]
        text = f"refused {type(message).__name__.lower()} {name!r}: {why}"
        self._calls.events.append(Notice(peer.name, text, code))

    def _register_function(self, peer: Peer, message: m.RegisterFunction) -> None:
        holder = self._registry.find(peer.namespace, message.id)
        if holder is not None and peer.rights is None:
            if holder.owner.rights is not None:
                self._take_over(holder, peer)
            elif holder.owner.is_remote and not peer.owner.is_remote:
                self._prefer_local(holder)
        try:
            validator = self._compile_schema(message) if peer.owner.is_validated else None
            function = self._registry.register(peer, message, validator)
        except InvocationError as error:
            self._reject(peer, message.id, error.code, error.message)
            if holder is not None:
                self.settle_vacancy(holder, "taken over")
            return
        if function is None and peer.owner.is_remote:
            return  # it stands by for what runs here
        if function is None:
            existing = self._registry.find(peer.namespace, message.id)
            provider_id = existing.providers[0].id if existing and existing.providers else ""
            owner_name = existing.owner.name if existing else "?"
            why = f"{message.id} belongs to worker {owner_name}"
            self._reject(peer, message.id, ErrorCode.FUNCTION_NAMESPACE_CONFLICT, why, provider_id)
            return
        if peer.owner.is_validated:
            function.result_validator = self._compile_result_schema(message)
        self._choose_provider(peer, function)
        self.on_provided(peer, function)
        self._calls.events.append(FunctionsChanged())
        self._calls.place_unresolved()
        if holder is not None:  # its metadata may have changed, and with them whether sessions may call it
            self.judge_sessions(message.id)

    def _take_over(self, function: Function, peer: Peer) -> None:
        """A peer of the project registers what a session has: the session, and those that stand by, lose it at once."""
        sessions = [provider for provider in function.owner.peers if function in provider.functions]
        for session in [*sessions, *(standby for standby, _ in function.standbys)]:
            self._remove(session, function)
            why = f"{function.id} belongs to the project"
            self._reject(session, function.id, ErrorCode.FUNCTION_NAMESPACE_CONFLICT, why)
        text = f"took over {function.id}, which session {function.owner.name} had registered"
        self._calls.events.append(Notice(peer.name, text, "taken_over"))

    def _prefer_local(self, function: Function) -> None:
        """A peer of this engine registers what other engines have: from now on they stand by."""
        for remote in list(function.providers):
            self._remove(remote, function)
            function.add_standby(remote, function.declaration)

    def judge_sessions(self, function_id: str | None = None) -> None:
        """Hold the bindings of sessions against their rights, which may have changed; see `Bindings.judge_sessions`."""
        reasons, outgoing = self._bindings.judge_sessions(function_id)
        self._calls.events += [Notice("", text, "dropped_by_rules") for text in reasons]
        self.send_all(outgoing)

    def _choose_provider(self, peer: Peer, function: Function) -> None:
        """A function that lives behind a URL is provided by the peer's proxy in place of the peer."""
        proxy = self._http_proxies.get(peer)
        invocation = function.declaration.invocation
        if not m.is_empty(invocation):
            proxy = self._http_proxies[peer] = proxy or HttpFunctionProxy(peer, self._calls)
            function.remove_provider(peer)
            function.add_provider(proxy)
            peer.functions[function] = None
            self._calls.events.append(HttpFunctionRegistered(peer, function.id, invocation))
        elif proxy is not None:
            function.remove_provider(proxy)

    def _refuse_beyond_quota(self, peer: Peer, message: Any, why: str) -> None:
        """Answer a registration that is too much. The user is told of the first one only: there may be thousands."""
        code = ErrorCode.LIMIT_EXCEEDED
        if isinstance(message, m.RegisterTrigger):
            error = encode_error(m.ErrorBody(code, why))
            answer: m.Message = m.TriggerRegistrationResult(
                message.id, message.trigger_type, message.function_id, error
            )
        elif isinstance(message, m.Observe):
            answer = m.ObserveResult(message.id, "error", encode_error(m.ErrorBody(code, why)))
        else:
            conflict = ErrorCode.FUNCTION_NAMESPACE_CONFLICT
            answer = m.RegistrationRejected(conflict, peer.namespace, "", None, message.id, code, why)
        self._calls.counters[code] += 1
        self._calls.send(peer, encode(answer))
        if self.quota.is_first_refusal(peer):
            self._calls.events.append(
                Notice(peer.name, f"{message.id} and what follows is not registered: {why}", code)
            )

    def _reject(self, peer: Peer, function_id: str, code: str, why: str, provider_id: str = "") -> None:
        conflict = ErrorCode.FUNCTION_NAMESPACE_CONFLICT
        if peer.rights is not None:
            provider_id = ""  # a session learns nothing about who has the name
        rejection = m.RegistrationRejected(conflict, peer.namespace, provider_id, function_id=function_id)
        if code != conflict:
            rejection.reason, rejection.message = code, why
        self._calls.send(peer, encode(rejection))
        if code != ErrorCode.FORBIDDEN:
            self._calls.events.append(Notice(peer.name, f"function not registered: {why}", code))

    def withdraw(self, peer: Peer, function_id: str, why: str) -> None:
        """Take this function from the peer; a function that it does not have stays."""
        function = self._registry.find(peer.namespace, function_id)
        if function is not None:
            self._remove(peer, function)
            self.settle_vacancy(function, why)

    def _remove(self, peer: Peer, function: Function) -> None:
        function.remove_provider(peer)
        if peer in self._http_proxies:
            function.remove_provider(self._http_proxies[peer])
        self.on_withdrawn(peer, function)

    def _register_trigger_type(self, peer: Peer, message: m.RegisterTriggerType) -> None:
        former = self._bindings.types.get((message.namespace or peer.namespace, message.id))
        if former is not None and former.provider.rights is not None and peer.rights is None:
            text = f"took over trigger type {message.id}, which session {former.provider.name} had registered"
            self._calls.events.append(Notice(peer.name, text, "taken_over"))
        self.send_all(self._bindings.provide(message, peer))

    def _register_trigger(self, peer: Peer, message: m.RegisterTrigger) -> None:
        for field in ("namespace", "trigger_namespace"):
            value = getattr(message, field)
            if value is not None and not value.strip():
                error = encode_error(error_bodies.invalid_namespace(field))
                answer = m.TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, error)
                self._calls.send(peer, encode(answer))
                return
        binding = Binding(message, peer)
        if peer.owner.is_supervised:
            self.send_all(self._bindings.adopt(binding, peer))
        else:
            self.send_all(self._bindings.bind(binding))

    def _register_action(self, peer: Peer, message: m.RegisterAction) -> None:
        try:
            self._registry.provide_action(message, peer)
        except InvocationError as error:
            self._reject(peer, message.id, error.code, error.message)

    def send_all(self, outgoing: Outgoing) -> None:
        for peer, message in outgoing:
            self._calls.send(peer, encode(message))

    def settle_vacancy(self, function: Function, why: str) -> None:
        """A provider left the function. Without another one: keep it for its worker, or let a standby register it.

        The calls that waited for it go to the standby, or fail with `why`.
        """
        goes_elsewhere = not function.owner.is_expected and any(peer.owner.is_remote for peer, _ in function.standbys)
        if function.providers or (function.owner.keeps_vacancies and not goes_elsewhere):
            return
        waiting = self._calls.unqueue(function)
        self._registry.drop(function)
        self._calls.events.append(FunctionsChanged())
        standbys, function.standbys = function.standbys, []
        for peer, declaration in standbys:
            peer.functions.pop(function, None)
            if not peer.is_gone and peer.is_serving:
                self._apply(peer, declaration)
        for invocation in waiting:
            if self._registry.find(function.namespace, function.id) is not None:
                self._calls.place(invocation)
            else:
                rights = invocation.origin.rights
                self._calls.fail(invocation, error_bodies.function_not_found(function, self._registry, why, rights))

    def drop_vacancies(self, owner: Owner, why: str) -> None:
        """Forget the actions and functions of the owner that no peer provides, nor is expected to provide again."""
        for id, action in list(self._registry.actions.items()):
            if action.owner is owner and action.is_vacant:
                del self._registry.actions[id]
        for function in [function for function in self._registry if function.owner is owner]:
            if not function.providers:
                self.settle_vacancy(function, why)

    def vacate(self, peer: Peer, why: str) -> None:
        """Take the peer out of all tables, and settle what only it provided."""
        owner = peer.owner
        owner.peers.remove(peer)
        for function in list(peer.functions):
            if peer.rights is None and not owner.is_supervised and peer in function.providers:
                self._registry.remembered.add(function.namespace, function.id)
            self._remove(peer, function)
            self.settle_vacancy(function, why)
        self._http_proxies.pop(peer, None)
        for id in list(self._registry.actions):
            self._registry.withdraw_action(id, peer)
        if not owner.is_expected:  # else the next generation registers the bindings that it still wants
            self.send_all(self._bindings.forget_binder(peer))
        self.send_all(self._bindings.forget_provider(peer))
        self.on_vacated(peer)
        self._calls.dispatch_waiting(owner)  # calls that wait for a peer that will not come fail
        self._calls.events.append(FunctionsChanged())
