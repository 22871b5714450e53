"""Functions that live behind a URL: their calls go on to the worker that turns them into requests. Pure.

One proxy stands in the registry as the provider of all such functions that a peer registered. It places every call that
the router sends it again, as a call of the worker's `invoke` that says where the function lives; id, caller, deadline
and cancelling stay as they are. The worker keeps no state, so that calls wait while it restarts, as any others do.
"""

from __future__ import annotations

from iii.engine.routing import error_bodies
from iii.engine.routing.calls import Calls
from iii.engine.routing.message_forms import redirected
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Function
from iii.protocol import messages as m
from iii.protocol.codec import encode
from iii.protocol.messages import DEFAULT_NAMESPACE

INVOKE = "engine::http_functions::invoke"
CHECK = "engine::http_functions::check"


class HttpFunctionProxy(Peer):
    """Passes calls on, and never runs one."""

    def __init__(self, registrant: Peer, calls: Calls) -> None:
        super().__init__(
            f"{registrant.id} http",
            kind="worker",
            name=registrant.name,
            namespace=registrant.namespace,
            owner=registrant.owner,
            flush=self._forward_calls,
        )
        self._calls = calls

    def _forward_calls(self) -> None:
        calls = self._calls
        for message in calls.take_messages(self):
            is_call = isinstance(message, m.InvokeFunction)
            invocation = calls.in_flight.get(message.invocation_id) if is_call else None
            if invocation is None or invocation.callee is not self:
                continue
            if invocation.is_abandoned:
                calls.settle(self, m.InvocationResult(invocation.id), b"")
                continue
            self.busy -= 1
            invocation.callee = None
            target = calls.registry.find(DEFAULT_NAMESPACE, INVOKE)
            if target is None and not calls.starting:
                calls.fail(invocation, error_bodies.no_http_worker(invocation.function))
                continue
            payload = {
                "function_id": invocation.function.id,
                "namespace": invocation.function.namespace,
                "invocation": invocation.function.declaration.invocation,
                "data": m.or_null(message.data),
                "caller_worker_id": invocation.origin.id,
            }
            invocation.line = encode(redirected(message, INVOKE, payload))
            invocation.function = target or Function(INVOKE, DEFAULT_NAMESPACE, self.owner)
            calls.place(invocation)
