"""A peer that runs no call: it passes on each one that it is sent, as a call of another function. Pure.

The call stays the same: id, caller, deadline and cancelling. So its caller notices nothing, and nothing is held twice.
"""

from __future__ import annotations

from iii.engine.routing.calls import Calls
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner, Peer, PeerKind
from iii.engine.routing.registry import NO_OWNER, Function
from iii.protocol import messages as m
from iii.protocol.codec import encode
from iii.protocol.messages import DEFAULT_NAMESPACE


class CallProxy(Peer):
    """Provides functions by having others run them."""

    def __init__(self, id: str, calls: Calls, *, kind: PeerKind, owner: Owner) -> None:
        super().__init__(
            id, kind=kind, name=owner.name, namespace=owner.namespace, owner=owner, flush=self._forward_calls
        )
        self._calls = calls

    def call_instead(self, invocation: Invocation, message: m.InvokeFunction) -> m.InvokeFunction | m.ErrorBody:
        """Return the call that takes the place of this one, or the error that its caller gets."""
        raise NotImplementedError

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
            instead = self.call_instead(invocation, message)
            if isinstance(instead, m.ErrorBody):
                calls.fail(invocation, instead)
                continue
            namespace = instead.namespace or DEFAULT_NAMESPACE
            target = calls.registry.find(namespace, instead.function_id)
            instead.namespace = None  # the callee's line never has one
            calls.replace_line(invocation, encode(instead))
            invocation.function = target or Function(instead.function_id, namespace, NO_OWNER)
            calls.place(invocation)
