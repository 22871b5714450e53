"""The rights of one session: joins the table of `security/rights.py` with its listener's rules and the router's tables.

Everything that a session asks for is decided here, at the moment it takes effect: the gateway asks about calls, the
router about registrations, the engine's lists about their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Raw, Struct

from iii.engine.gateway.authentication import AuthPolicy
from iii.engine.gateway.middleware_proxy import STAND_IN, MiddlewareProxies
from iii.engine.routing.bindings import Binding
from iii.engine.routing.message_forms import malformed_name
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.router import Router
from iii.engine.security.rbac import Permissions, function_ids_in, is_reserved
from iii.engine.security.rights import Row, Standing, Thing, Verdict, entrance_rows, rows_of
from iii.protocol import messages as m
from iii.protocol.codec import decode_object


class _Named(Struct, gc=False):
    """One thing that a message names: its standing, and what the rules say about it: why not, None if they allow it."""

    name: str
    standing: Standing
    why_not: str | None = None


class SessionRights:
    """Implements `Rights` for one session. `policy` and `permissions` change when the listener's rules do."""

    def __init__(
        self, router: Router, peer: Peer, policy: AuthPolicy, permissions: Permissions, proxies: MiddlewareProxies
    ) -> None:
        self.policy = policy
        self.permissions = permissions
        self._router = router
        self._peer = peer
        self._proxies = proxies

    def __repr__(self) -> str:
        return f"<SessionRights of {self._peer!r}>"

    # The questions of the router and of lists

    def refusal(self, message: m.Message) -> str | None:
        """Return why the session may not send this message now; None if it may. See `Rights`."""
        wrong = malformed_name(message)
        if wrong is not None:
            return wrong
        payload: dict[str, Any] = {}
        why = next(self._refusals(rows_of(message), message, payload), None)
        if why is None and isinstance(message, m.InvokeFunction):
            rows = entrance_rows(message.function_id)
            payload = as_object(message.data) if rows else payload
            why = next(self._refusals(rows, message, payload), None)
        return why

    def may_invoke(self, namespace: str, function_id: str) -> bool:
        if function_id.startswith(STAND_IN):
            return False  # it speaks for the session that bound it
        function = self._router.registry.find(namespace, function_id)
        return self.permissions.may_invoke(namespace, function_id, function.metadata if function else {})

    def may_bind_to(self, trigger_type: str) -> bool:
        return self.permissions.may_bind_to(trigger_type)

    def called_by(self, binding: m.RegisterTrigger) -> m.RegisterTrigger:
        """Return a binding of the session as its provider gets it: what it calls goes through the middleware."""
        return binding if self.policy.middleware_function_id is None else self._proxies.stand_in(self, binding)

    def permits(self, message: m.Message) -> bool:
        """Whether the rules allow this kind of registration at all: the hook is asked about no other."""
        if isinstance(message, m.RegisterFunction):
            # The engine would send a secret of this machine to the URL of a function with `auth`.
            return self.permissions.may_register_functions and not as_object(message.invocation).get("auth")
        if isinstance(message, m.RegisterTrigger):
            return self.permissions.may_bind_to(message.trigger_type)
        return not isinstance(message, m.RegisterTriggerType) or self.permissions.may_register_trigger_types

    # The join

    def _refusals(self, rows: tuple[Row, ...], message: m.Message, payload: Mapping[str, Any]) -> Iterator[str]:
        for row in rows:
            for named in self._named(row.thing, message, payload):
                verdict = row.verdict(named.standing)
                if verdict is Verdict.DENY:
                    yield f"{row.thing} {named.name!r} is {named.standing.value}" if named.name else "not for sessions"
                elif verdict is Verdict.RULES and named.why_not is not None:
                    yield named.why_not

    def _named(self, thing: Thing, message: m.Message, payload: Mapping[str, Any]) -> Iterator[_Named]:
        """Yield what a message names of this kind, in its fields or (of an entrance) in its payload."""
        if thing == "function":
            yield from self._functions(message, payload)
        elif thing == "trigger type":
            yield from self._trigger_types(message, payload)
        elif thing in ("binding", "offer"):
            yield from self._bindings(thing, message, payload)
        elif thing in ("observer", "observed function"):
            yield self._observed(thing, message)
        elif thing == "call":
            yield self._call(message)
        elif thing == "namespace":
            yield from self._namespaces(message, payload)
        elif thing == "worker":
            yield self._worker(str(payload.get("name") or ""))
        elif thing == "connection":
            assert isinstance(message, m.Reattach)
            peer = self._router.peer_table.peers.get(message.previous_worker_id)
            yield _Named(message.previous_worker_id, self._standing_of(peer.owner if peer else None))
        else:
            yield _Named(str(getattr(message, "id", "")) if thing == "action" else "", Standing.FREE)

    def _bindings(self, thing: Thing, message: m.Message, payload: Mapping[str, Any]) -> Iterator[_Named]:
        """Yield the binding that a message names, or its offer to a provider."""
        binding = self._router.bindings.find(str(payload["id"] if "id" in payload else getattr(message, "id", "")))
        if thing == "binding" and binding is not None:
            yield _Named(binding.id, self._standing_of_binding(binding))
        elif thing == "offer":
            assert isinstance(message, m.TriggerRegistrationResult)
            provider = binding.provider if binding else None
            yield _Named(message.id, self._standing_of(provider.owner if provider else None))

    def _observed(self, thing: Thing, message: m.Message) -> _Named:
        """Return the observer that a message names, or the function that it asks to observe."""
        assert isinstance(message, m.Observe | m.Unobserve)
        if thing == "observer" or isinstance(message, m.Unobserve):
            observing = self._router.observing
            owner = observing.owner_of(message.id) if observing is not None else None
            return _Named(message.id, self._standing_of(owner))
        namespace, id = named_in(message.source)
        function = self._router.registry.find(namespace, id)
        return _Named(id, self._standing_of(function.owner if function else None, id))

    def _functions(self, message: m.Message, payload: Mapping[str, Any]) -> Iterator[_Named]:
        if isinstance(message, m.RegisterFunction | m.UnregisterFunction):
            why = None if self.permits(message) else f"this session may not register function {message.id}"
            yield _Named(message.id, self._standing_of_function(message.id), why)
        elif isinstance(message, m.RegisterTrigger):
            namespace = message.namespace or m.DEFAULT_NAMESPACE
            for id in [message.function_id, *function_ids_in(as_object(message.config))]:
                denial = f"function '{id}' not allowed in namespace '{namespace}'"
                yield _Named(id, Standing.FREE, self._why_not_later(namespace, id, denial))
        elif isinstance(message, m.Observe):
            namespace, id = named_in(message.target)
            yield _Named(id, Standing.FREE, self._why_not_later(namespace, id, self.permissions.denial(id)))
        else:
            assert isinstance(message, m.InvokeFunction)
            if not payload:
                id, namespace = message.function_id, message.namespace or m.DEFAULT_NAMESPACE
                why = None if self.may_invoke(namespace, id) else self.permissions.denial(id)
                if not m.is_empty(message.action) and as_object(message.action).get("type") != "void":
                    why = self._why_not_later(namespace, id, self.permissions.denial(id))
                yield _Named(id, Standing.FREE, why)
                return
            # What the called function will have called, in the namespace that it is told.
            named = payload.get("namespace") if message.function_id != "engine::register_trigger" else None
            namespace = named if isinstance(named, str) and named else m.DEFAULT_NAMESPACE
            for id in function_ids_in(payload):
                yield _Named(id, Standing.FREE, self._why_not_later(namespace, id, self.permissions.denial(id)))

    def _why_not_later(self, namespace: str, id: str, denial: str) -> str | None:
        """Return why the session may not have this function called by others: by a provider, or as a job.

        They call it with rights of their own. So no function that in turn acts on names in its payload may be among
        them: a session calls the functions of the engine and of the standard workers itself.
        """
        if not self.may_invoke(namespace, id):
            return denial
        if not is_reserved(id):
            return None
        return f"function '{id}' belongs to the engine: a session may call it, but not have it called by others"

    def _trigger_types(self, message: m.Message, payload: Mapping[str, Any]) -> Iterator[_Named]:
        bindings = self._router.bindings
        if isinstance(message, m.RegisterTriggerType | m.UnregisterTriggerType):
            key = message.namespace or self._peer.namespace, message.id
            provided = bindings.types.get(key)
            standing = self._standing_of(provided.provider.owner if provided else None, message.id)
            if standing is Standing.FREE and key in bindings.remembered:
                standing = Standing.PROJECT
            why = None if self.permits(message) else f"this session may not register trigger type {message.id}"
            yield _Named(message.id, standing, why)
            return
        named = message.trigger_type if isinstance(message, m.RegisterTrigger) else str(payload.get("trigger_type"))
        why = f"trigger type '{named}' not allowed (add to allowed_trigger_types of the auth function's result)"
        yield _Named(named, Standing.FREE, None if self.permissions.may_bind_to(named) else why)

    def _namespaces(self, message: m.Message, payload: Mapping[str, Any]) -> Iterator[_Named]:
        """The session's worker lives in a namespace that it was granted, and so does what it provides and binds to."""
        if isinstance(message, m.RegisterTrigger):
            named = message.trigger_namespace
        elif isinstance(message, m.RegisterTriggerType):
            named = message.namespace
        else:
            key = "trigger_namespace" if "trigger_type" in payload else "namespace"
            named = payload.get(key) if isinstance(payload.get(key), str) else None
        namespace = named or m.DEFAULT_NAMESPACE
        is_told = isinstance(message, m.InvokeFunction) and message.function_id == "engine::workers::register"
        if named is None and not is_told:
            return
        yield _Named(namespace, Standing.FREE, self.permissions.namespace_denial(namespace))

    def _call(self, message: m.Message) -> _Named:
        id = str(getattr(message, "invocation_id", ""))
        invocation = self._router.calls.in_flight.get(id)
        if invocation is None:
            return _Named(id, Standing.FREE)
        asks_as_caller = isinstance(message, m.Cancel | m.ItemsTaken)
        holder = invocation.caller if asks_as_caller else invocation.callee
        return _Named(id, self._standing_of(holder.owner if holder else invocation.function.owner))

    def _worker(self, name: str) -> _Named:
        peer_table = self._router.peer_table
        if not name:
            return _Named(name, Standing.FREE)
        if name in peer_table.owners:
            return _Named(name, Standing.PROJECT)
        holders = [peer for peer in peer_table.peers.values() if peer.name == name and peer.kind != "client"]
        standings = [self._standing_of(holder.owner) for holder in holders]
        standing = next((each for each in standings if each is not Standing.SESSION), None)
        return _Named(name, standing or (Standing.SESSION if holders else Standing.FREE))

    # Whose a name is

    def _standing_of_function(self, id: str) -> Standing:
        registry = self._router.registry
        function = registry.find(self._peer.namespace, id)
        standing = self._standing_of(function.owner if function else None, id)
        is_remembered = standing is Standing.FREE and (self._peer.namespace, id) in registry.remembered
        return Standing.PROJECT if is_remembered else standing

    def _standing_of_binding(self, binding: Binding) -> Standing:
        if binding.rights is self:
            return Standing.OWN
        return Standing.SESSION if binding.rights is not None else Standing.PROJECT

    def _standing_of(self, owner: Owner | None, name: str = "") -> Standing:
        if owner is self._peer.owner:
            return Standing.OWN
        if is_reserved(name):
            return Standing.ENGINE
        if owner is not None:
            return Standing.SESSION if owner.rights is not None else Standing.PROJECT
        return Standing.PROJECT if self._is_expected(name) else Standing.FREE

    def _is_expected(self, name: str) -> bool:
        """Whether a worker of the project whose names are not known yet may have this one."""
        owners = self._router.peer_table.owners
        service, separator, _ = name.partition("::")
        return bool(separator) and service in owners and not owners[service].has_served


def named_in(data: Raw) -> tuple[str, str]:
    """Return namespace and id of the function that one end of an observer names."""
    fields = as_object(data)
    namespace, id = fields.get("namespace"), fields.get("function_id")
    return namespace if isinstance(namespace, str) and namespace else m.DEFAULT_NAMESPACE, str(id)


def as_object(data: Raw) -> dict[str, Any]:
    """Return a raw JSON object decoded; an empty one for anything else."""
    try:
        return decode_object(data)
    except ValueError:  # no object, or e.g. a lone surrogate: the callee refuses the call
        return {}
