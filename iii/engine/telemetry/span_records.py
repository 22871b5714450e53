"""Spans for telemetry (docs/observability.md), made from the recorder's spans. Pure.

The records are structs, built and encoded in C: batches are made on the loop that routes calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from iii.engine.routing.bindings import Binding
from iii.engine.routing.peer import Peer
from iii.engine.routing.tracer import Span

# Service name of records that belong to no worker.
SERVICE = "iii"
# Characters of a name that a peer has given itself.
MAX_NAME = 256
# Seconds; a shorter wait is only the time of routing.
MIN_WAIT = 0.001

# Returns type and id of the trigger behind a provider's call; the id is None if several bindings match.
TriggerOf = Callable[[Span], "tuple[str | None, str | None]"]


class Attributes(Struct, omit_defaults=True, gc=False):
    """The known attributes of a call, under the names of docs/observability.md; unknown ones are left out."""

    function: str = field(name="iii.function.id")
    function_id: str
    invocation: str = field(name="iii.invocation.id")
    caller: str = field(name="iii.caller.worker")
    kind: str | None = field(name="iii.function.kind", default=None)
    namespace: str = field(name="iii.function.namespace", default="default")
    caller_function: str | None = field(name="iii.caller.function", default=None)
    callee: str | None = field(name="iii.callee.worker", default=None)
    instance: int | None = field(name="iii.callee.instance", default=None)
    generation: int | None = field(name="iii.worker.generation", default=None)
    trigger_type: str | None = field(name="iii.trigger.type", default=None)
    trigger_id: str | None = field(name="iii.trigger.id", default=None)
    wait_ms: float | None = field(name="iii.queue.wait_ms", default=None)
    action: str | None = field(name="iii.action", default=None)
    queue: str | None = field(name="iii.queue.name", default=None)
    attempt: int = field(name="iii.attempt", default=1)
    error_code: str | None = field(name="error.code", default=None)


class Event(Struct, gc=False):
    name: str
    timestamp_unix_nano: int
    attributes: list[tuple[str, str]]


class SpanRecord(Struct, gc=False):
    """A span as JSON."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    status: Literal["ok", "error", "unset"]
    attributes: Attributes
    service_name: str
    events: list[Event]
    links: list[Event] = []
    instrumentation_scope_name: str = "iii"
    flags: int = 1
    status_description: str | UnsetType = UNSET  # of a failed call
    pending: bool | UnsetType = UNSET  # of a call that has not ended


def span_record(span: Span, epoch: float, trigger_of: TriggerOf) -> SpanRecord:
    """Return the record of a span. `epoch` plus the span's times are seconds since 1970."""
    name = f"call {span.function_id}"
    if span.action is not None and span.action.type == "enqueue":
        name = f"enqueue {span.function_id} → {_short(span.action.queue or 'default')}"
    start = nanoseconds(span.start + epoch)
    events = []
    if span.payload is not None:
        events = [Event("iii.invocation.input", start, [("iii.payload.json", bytes(span.payload).decode())])]
    elif span.is_payload_cut:
        events = [Event("iii.invocation.input", start, [("iii.payload.truncated", "true")])]
    end = nanoseconds(span.end + epoch) if span.end else 0
    if span.error is not None and span.error[2]:
        code, message, stack = span.error
        # Under the names of OpenTelemetry, whose viewers show it.
        attributes = [("exception.type", code), ("exception.message", message), ("exception.stacktrace", stack)]
        events.append(Event("exception", end or start, attributes))
    return SpanRecord(
        span.trace_id,
        span.span_id,
        span.parent_id,
        name,
        start,
        end,
        "error" if span.error else "ok" if span.end else "unset",
        _attributes(span, trigger_of),
        _short(span.owner.name) if span.owner and span.owner.name else SERVICE,
        events,
        status_description=span.error[1] if span.error else UNSET,
        pending=UNSET if span.end or span.error else True,
    )


def nanoseconds(seconds: float) -> int:
    """Return seconds since 1970 as whole nanoseconds, to the microsecond: a float holds no more."""
    return int(seconds * 1_000_000) * 1000


def _attributes(span: Span, trigger_of: TriggerOf) -> Attributes:
    trigger_type, trigger_id = trigger_of(span)
    is_internal = span.function_id.startswith("engine::") and not span.function_id.startswith("engine::queue::")
    attributes = Attributes(
        function=span.function_id,
        function_id=span.function_id,
        invocation=span.invocation_id,
        caller=_short(span.origin.name or span.origin.id),
        kind="internal" if is_internal else None,
        namespace=span.namespace,
        caller_function=span.caller,
        trigger_type=trigger_type,
        trigger_id=trigger_id,
        attempt=span.attempt,
        error_code=span.error[0] if span.error else None,
    )
    if (callee := span.callee) is not None:
        attributes.callee = _short(callee.name or callee.id)
        attributes.generation, attributes.instance = callee.generation, callee.instance
    wait = span.dispatched - span.start
    if wait >= MIN_WAIT:
        attributes.wait_ms = round(wait * 1000, 3)
    if span.action is not None:
        attributes.action = _short(span.action.type)
        attributes.queue = _short(span.action.queue or "default") if span.action.type == "enqueue" else None
    return attributes


def _short(name: str) -> str:
    return name[:MAX_NAME]


def trigger_finder(bindings: Iterable[Binding]) -> TriggerOf:
    """Return a `TriggerOf` for the present bindings. A provider's call does not name the binding that it fires."""
    by_call: dict[tuple[Peer, str, str], list[Binding]] = {}
    for binding in bindings:
        if binding.provider is not None:
            by_call.setdefault((binding.provider, binding.function_id, binding.namespace), []).append(binding)

    def trigger_of(span: Span) -> tuple[str | None, str | None]:
        matching = by_call.get((span.origin, span.function_id, span.namespace))
        if span.caller is not None or not matching or len({binding.trigger_type for binding in matching}) > 1:
            return None, None
        return matching[0].trigger_type, matching[0].id if len(matching) == 1 else None

    return trigger_of
