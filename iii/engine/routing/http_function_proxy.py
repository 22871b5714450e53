"""Functions that live behind a URL: their calls go on to the worker that turns them into requests. Pure.

One proxy stands in the registry as the provider of all such functions that a peer registered. A call becomes one of the
worker's `invoke` that says where the function lives. The worker keeps no state, so that calls wait while it restarts,
as any others do.
"""

from __future__ import annotations

from iii.engine.routing import error_bodies
from iii.engine.routing.call_proxy import CallProxy
from iii.engine.routing.calls import Calls
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.message_forms import redirected
from iii.engine.routing.peer import Peer
from iii.protocol import messages as m
from iii.protocol.messages import DEFAULT_NAMESPACE

INVOKE = "engine::http_functions::invoke"
CHECK = "engine::http_functions::check"


class HttpFunctionProxy(CallProxy):
    """Passes the calls of one peer's functions on to the worker that makes the requests."""

    def __init__(self, registrant: Peer, calls: Calls) -> None:
        super().__init__(f"{registrant.id} http", calls, kind="worker", owner=registrant.owner)

    def call_instead(self, invocation: Invocation, message: m.InvokeFunction) -> m.InvokeFunction | m.ErrorBody:
        calls = self._calls
        if calls.registry.find(DEFAULT_NAMESPACE, INVOKE) is None and not calls.starting:
            return error_bodies.no_http_worker(invocation.function)
        payload = {
            "function_id": invocation.function.id,
            "namespace": invocation.function.namespace,
            "invocation": invocation.function.declaration.invocation,
            "data": m.or_null(message.data),
            "caller_worker_id": invocation.origin.id,
        }
        return redirected(message, INVOKE, payload)
