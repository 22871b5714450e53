"""The in-flight table while somebody takes the feed: the same calls, with their beginnings and ends told to a tracer.

`trace` turns a table into this class and back, so that what is off is not there: without a feed the methods of `Calls`
run, and nothing on the path of a call asks whether it should be recorded. Pure; `router.py` is the only caller.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Raw

from iii.engine.routing.calls import Calls
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Function
from iii.engine.routing.span_recorder import Tracer, error_from
from iii.engine.tracing.trace_context import baggage_for
from iii.protocol.codec import decode_value, encode
from iii.protocol.messages import ABSENT, ErrorBody, InvocationResult, InvokeFunction, is_empty


class TracedCalls(Calls):
    """Calls that are told to `tracer`."""

    tracer: Tracer

    def admit(self, origin: Peer, message: InvokeFunction, function: Function | None, line: bytes, now: float) -> None:
        """As without a feed; a call that nobody has a trace for may begin one. Its line is then written anew."""
        if (
            message.caller is ABSENT
            and message.invocation_id not in self.in_flight
            and self.tracer.begin_root(origin, message, function, now)
        ):
            message.baggage = _baggage_of(message.function_id)
            line = encode(message)
        Calls.admit(self, origin, message, function, line, now)

    def admit_in_full(
        self, origin: Peer, message: InvokeFunction, function: Function | None, line: bytes, now: float
    ) -> Invocation | None:
        """As without a feed; one that names a recorded call as its caller is part of that, even without a context."""
        if (
            message.caller is not ABSENT
            and message.traceparent is None
            and self.tracer.spans
            and message.invocation_id not in self.in_flight
            and self.tracer.begin(origin, message, function, now)
        ):
            line = encode(message)
        return super().admit_in_full(origin, message, function, line, now)

    def _dispatch(self, invocation: Invocation, callee: Peer) -> None:
        super()._dispatch(invocation, callee)
        self.tracer.dispatched(invocation)

    def settle(self, callee: Peer, message: InvocationResult, line: bytes) -> None:
        """As without a feed; ends the call's span."""
        if message.invocation_id in self.tracer.spans:
            invocation = self.in_flight.get(message.invocation_id)
            if invocation is not None and invocation.callee is callee:
                error = None if message.error is ABSENT else _error_of(message.error)
                self.tracer.end(message.invocation_id, invocation, error)
        Calls.settle(self, callee, message, line)

    def tell(self, invocation: Invocation, error: ErrorBody) -> None:
        """As without a feed; the call's span ends with the error."""
        # A call that took the id of another is refused, and has no span: the other goes on.
        if self.in_flight.get(invocation.id) in (None, invocation):
            self.tracer.end(invocation.id, invocation, error_from(error))
        super().tell(invocation, error)

    def abandon(self, invocation: Invocation) -> None:
        """As without a feed; for whoever called, the call is over."""
        self.tracer.end(invocation.id, invocation, ("cancelled", "the caller gave up"))
        super().abandon(invocation)


@lru_cache(4096)
def _baggage_of(function_id: str) -> str:
    """What goes along with the trace of a call that came with neither."""
    return baggage_for(function_id, None)


def trace(calls: Calls, tracer: Tracer | None) -> None:
    """Tell a table's calls to a tracer from now on, or to nobody."""
    if tracer is None:
        calls.__class__ = Calls
    else:
        calls.__class__ = TracedCalls
        calls.tracer = tracer  # type: ignore[attr-defined]  # it is a TracedCalls by now


def _error_of(error: Raw) -> tuple[str, str] | None:
    if is_empty(error):
        return None
    try:
        return error_from(decode_value(error, type=ErrorBody))
    except ValueError:
        return "UNKNOWN", "the worker's error has no code and message"
