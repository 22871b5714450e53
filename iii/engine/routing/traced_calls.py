"""The call table while calls are recorded: the same calls, with their beginnings and ends reported to a tracer.

`TracedCalls` wraps a `Calls` from outside. On the hot path the router calls its `admit` and `settle` instead of the
table's; beside it, the table reports to it as its observer. Without a tracer neither exists, and a call costs nothing
more. Which call gets a span is the tracer's decision.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Raw

from iii.engine.routing.calls import Calls
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Function
from iii.engine.routing.tracer import Tracer, error_from
from iii.engine.tracing.trace_context import baggage_for
from iii.protocol.codec import decode_value, encode
from iii.protocol.messages import ABSENT, ErrorBody, InvocationResult, InvokeFunction, is_empty


class TracedCalls:
    """A call table whose calls are reported to `tracer`. Takes part in the table as its `CallObserver`."""

    def __init__(self, calls: Calls, tracer: Tracer) -> None:
        self._calls = calls
        self._tracer = tracer

    def admit(self, origin: Peer, message: InvokeFunction, function: Function | None, line: bytes, now: float) -> None:
        """As `Calls.admit`; a call that belongs to no trace yet may begin one. Its line is then written anew."""
        if (
            message.caller is ABSENT
            and message.invocation_id not in self._calls.in_flight
            and self._tracer.begin_root(origin, message, function, now)
        ):
            message.baggage = _baggage_of(message.function_id)
            line = encode(message)
        self._calls.admit(origin, message, function, line, now)

    def nested_line(
        self, origin: Peer, message: InvokeFunction, function: Function | None, line: bytes, now: float
    ) -> bytes:
        """Give a call whose caller is a recorded call a span, even if its message brings no trace context."""
        if (
            message.traceparent is None
            and self._tracer.spans
            and message.invocation_id not in self._calls.in_flight
            and self._tracer.begin(origin, message, function, now)
        ):
            return encode(message)
        return line

    def on_dispatched(self, invocation: Invocation) -> None:
        """Note when the callee got the call."""
        self._tracer.dispatched(invocation)

    def settle(self, callee: Peer, message: InvocationResult, line: bytes) -> None:
        """As `Calls.settle`, after the span of the call has ended."""
        if message.invocation_id in self._tracer.spans:
            invocation = self._calls.in_flight.get(message.invocation_id)
            if invocation is not None and invocation.callee is callee:
                error = None if message.error is ABSENT else _error_of(message.error)
                self._tracer.end(message.invocation_id, invocation, error)
        self._calls.settle(callee, message, line)

    def on_failed(self, invocation: Invocation, error: ErrorBody) -> None:
        """End the span with the engine's error."""
        # A call that is refused because its id is in flight has no span: that id's span is the other call's.
        if self._calls.in_flight.get(invocation.id) in (None, invocation):
            self._tracer.end(invocation.id, invocation, error_from(error))

    def on_abandoned(self, invocation: Invocation) -> None:
        """End the span: for the caller, the call is over."""
        self._tracer.end(invocation.id, invocation, ("cancelled", "the caller gave up"))


@lru_cache(4096)
def _baggage_of(function_id: str) -> str:
    """The baggage of a call that came without any, cached: most calls are of the same few functions."""
    return baggage_for(function_id, None)


def _error_of(error: Raw) -> tuple[str, str] | None:
    if is_empty(error):
        return None
    try:
        return error_from(decode_value(error, type=ErrorBody))
    except ValueError:
        return "UNKNOWN", "the worker's error has no code and message"
