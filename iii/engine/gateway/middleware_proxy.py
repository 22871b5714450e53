"""The middleware of a listener, for what the bindings of its sessions call.

The provider of a trigger type calls the function of a binding by itself. For a binding of a session on a listener with
a middleware it gets the id of a stand-in: a call of that goes to the middleware, if the session may still have the
function called, as a call by the session itself would.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

from msgspec import Raw
from msgspec.structs import replace

from iii.engine.gateway.authentication import AuthPolicy
from iii.engine.routing.call_proxy import CallProxy
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner
from iii.engine.routing.registry import Function
from iii.engine.routing.router import Router
from iii.engine.security.rbac import Permissions, function_ids_in, with_function_ids
from iii.errors import ErrorCode
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode_value
from iii.protocol.messages import DEFAULT_NAMESPACE

# The beginning of the ids of stand-ins.
STAND_IN = "engine::middleware::"


class Bounds(Protocol):
    """The rights of a session, as far as the middleware has to do with them."""

    policy: AuthPolicy
    permissions: Permissions

    def may_invoke(self, namespace: str, function_id: str) -> bool: ...


class MiddlewareProxies(CallProxy):
    """The stand-ins of one listener. Their ids are the same for the same session's next connection."""

    def __init__(self, router: Router) -> None:
        owner = Owner("middleware", DEFAULT_NAMESPACE, is_supervised=False)
        super().__init__("middleware", router.calls, kind="engine", owner=owner)
        self._router = router
        # By namespace and id of a stand-in: who bound it, and the id of the function that it stands in for.
        self._originals: dict[tuple[str, str], tuple[Bounds, str]] = {}

    def stand_in(self, rights: Bounds, binding: m.RegisterTrigger) -> m.RegisterTrigger:
        """Return a binding that names stand-ins in place of its functions."""
        namespace = binding.namespace or DEFAULT_NAMESPACE
        config = decode_value(binding.config)
        if isinstance(config, dict):
            config = with_function_ids(config, lambda id: self._stand_in_for(rights, namespace, id))
        function_id = self._stand_in_for(rights, namespace, binding.function_id)
        return replace(binding, function_id=function_id, config=Raw(encode_value(config)))

    def _stand_in_for(self, rights: Bounds, namespace: str, function_id: str) -> str:
        id = _id_of(rights, function_id)
        self._originals[namespace, id] = rights, function_id
        functions = self._router.registry.namespaces.setdefault(namespace, {})
        if id not in functions:
            functions[id] = function = Function(id, namespace, self.owner)
            function.add_provider(self)
        return id

    def forget_unused(self) -> None:
        """Remove the stand-ins that no binding names any more."""
        if not self._originals:
            return
        used: set[tuple[str, str]] = set()
        for binding in self._router.bindings:
            if binding.rights is not None:
                called = binding.request()
                config = decode_value(called.config)
                ids = [called.function_id, *function_ids_in(config if isinstance(config, dict) else {})]
                used.update((binding.namespace, id) for id in ids)
        for key in self._originals.keys() - used:
            del self._originals[key]
            function = self._router.registry.find(*key)
            if function is not None:
                function.remove_provider(self)
                self._router.registrations.settle_vacancy(function, "its binding was removed")

    def call_instead(self, invocation: Invocation, message: m.InvokeFunction) -> m.InvokeFunction | m.ErrorBody:
        namespace = invocation.function.namespace
        original = self._originals.get((namespace, invocation.function.id))
        if original is None or not original[0].may_invoke(namespace, original[1]):
            return m.ErrorBody(ErrorCode.FORBIDDEN, "the session that bound this function may not call it any more")
        rights, function_id = original
        instead = replace(message, function_id=function_id, namespace=namespace)
        return through_middleware(rights, instead) or instead


def through_middleware(rights: Bounds, call: m.InvokeFunction) -> m.InvokeFunction | None:
    """Return the call of the middleware that takes the place of a session's call; None if there is no middleware."""
    middleware = rights.policy.middleware_function_id
    if middleware is None:
        return None
    question: dict[str, Any] = {
        "function_id": call.function_id,
        "payload": m.or_null(call.data),
        "action": m.or_null(call.action),
        "context": rights.permissions.auth.context,
        "namespace": call.namespace or DEFAULT_NAMESPACE,
    }
    return replace(call, function_id=middleware, data=Raw(encode_value(question)))


def _id_of(rights: Bounds, function_id: str) -> str:
    session = f"{rights.policy.middleware_function_id}\0".encode() + bytes(rights.permissions.auth.context)
    return f"{STAND_IN}{hashlib.sha256(session).hexdigest()[:12]}::{function_id}"
