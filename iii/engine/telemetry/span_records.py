"""How a span looks to whoever takes the feed (docs/observability.md). Pure; called by `feed.py` for each batch.

Structs, because a batch is made on the loop that routes calls: they are built and encoded in C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct, field

from iii.engine.routing.bindings import Binding
from iii.engine.routing.peer import Peer
from iii.engine.routing.span_recorder import Span

SERVICE = "iii"  # of what belongs to no worker
# Characters of a name that a peer has given itself.
MAX_NAME = 256
# A call that waited for less was only routed.
SHORTEST_WAIT = 0.001

# Returns type and id of the trigger behind a provider's call of a function; the id is None when several would fit.
TriggerOf = Callable[[Span], "tuple[str | None, str | None]"]


class Attributes(
    Struct,
    omit_defaults=True,
    gc=False,
    rename={
        "function": "iii.function.id",
        "invocation": "iii.invocation.id",
        "kind": "iii.function.kind",
        "namespace": "iii.function.namespace",
        "caller": "iii.caller.worker",
        "caller_function": "iii.caller.function",
        "callee": "iii.callee.worker",
        "instance": "iii.callee.instance",
        "generation": "iii.worker.generation",
        "trigger_type": "iii.trigger.type",
        "trigger_id": "iii.trigger.id",
        "wait_ms": "iii.queue.wait_ms",
        "action": "iii.action",
        "queue": "iii.queue.name",
        "attempt": "iii.attempt",
        "error_code": "error.code",
    },
):
    """What is known of a call, under the names of docs/observability.md; what is not is left out."""

    function: str
    function_id: str
    invocation: str
    caller: str
    kind: str | None = None
    namespace: str = "default"
    caller_function: str | None = None
    callee: str | None = None
    instance: int | None = None
    generation: int | None = None
    trigger_type: str | None = None
    trigger_id: str | None = None
    wait_ms: float | None = None
    action: str | None = None
    queue: str | None = None
    attempt: int = 1
    error_code: str | None = None


class Event(Struct, gc=False):
    """Something that happened within a span."""

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
    events: list[Event] = field(default_factory=list)
    links: list[Event] = field(default_factory=list)
    instrumentation_scope_name: str = "iii"
    flags: int = 1


class FailedSpanRecord(SpanRecord, gc=False):
    """One whose call failed."""

    status_description: str = ""


class PendingSpanRecord(SpanRecord, gc=False):
    """One that has not ended."""

    pending: bool = True


def span_record(span: Span, epoch: float, trigger_of: TriggerOf) -> SpanRecord:
    """Return what is told of a span. `epoch`: what to add to its times to get seconds since 1970."""
    kind = SpanRecord if span.end and not span.error else FailedSpanRecord if span.error else PendingSpanRecord
    form: SpanRecord = kind(
        span.trace_id,
        span.span_id,
        span.parent_id,
        _name(span),
        nanoseconds(span.start + epoch),
        nanoseconds(span.end + epoch) if span.end else 0,
        "error" if span.error else "ok" if span.end else "unset",
        _attributes(span, trigger_of),
        _short(span.owner.name) if span.owner and span.owner.name else SERVICE,
    )
    if span.error:
        form.status_description = span.error[1]  # type: ignore[attr-defined]  # it is a FailedForm
    if span.payload is not None:
        form.events = [_input(form, ("iii.payload.json", bytes(span.payload).decode()))]
    elif span.is_payload_cut:
        form.events = [_input(form, ("iii.payload.truncated", "true"))]
    return form


def _input(form: SpanRecord, attribute: tuple[str, str]) -> Event:
    return Event("iii.invocation.input", form.start_time_unix_nano, [attribute])


def nanoseconds(seconds: float) -> int:
    """Return seconds since 1970 as whole nanoseconds, to the microsecond: a float holds no more."""
    return int(seconds * 1_000_000) * 1000


def _name(span: Span) -> str:
    if span.action is not None and span.action.type == "enqueue":
        return f"enqueue {span.function_id} → {_short(span.action.queue or 'default')}"
    return f"call {span.function_id}"


def _attributes(span: Span, trigger_of: TriggerOf) -> Attributes:
    trigger_type, trigger_id = trigger_of(span)
    found = Attributes(
        function=span.function_id,
        function_id=span.function_id,
        invocation=span.invocation_id,
        caller=_short(span.origin.name or span.origin.id),
        kind="internal" if _is_internal(span.function_id) else None,
        namespace=span.namespace,
        caller_function=span.caller,
        trigger_type=trigger_type,
        trigger_id=trigger_id,
        attempt=span.attempt,
    )
    _add_run(found, span)
    if span.action is not None:
        found.action = _short(span.action.type)
        found.queue = _short(span.action.queue or "default") if span.action.type == "enqueue" else None
    return found


def _is_internal(function_id: str) -> bool:
    return function_id.startswith("engine::") and not function_id.startswith("engine::queue::")


def _add_run(found: Attributes, span: Span) -> None:
    """Note who ran it, how long it had to wait, and how it failed."""
    callee = span.callee
    if callee is not None:
        found.callee = _short(callee.name or callee.id)
        found.generation = callee.generation
        found.instance = callee.instance
    wait = span.dispatched - span.start
    if wait >= SHORTEST_WAIT:
        found.wait_ms = round(wait * 1000, 3)
    if span.error:
        found.error_code = span.error[0]


def _short(name: str) -> str:
    return name[:MAX_NAME]


def trigger_finder(bindings: Iterable[Binding]) -> TriggerOf:
    """Return a `TriggerOf` over the bindings as they are now. Providers do not say which binding they fire."""
    found: dict[tuple[Peer, str, str], list[Binding]] = {}
    for binding in bindings:
        if binding.provider is not None:
            found.setdefault((binding.provider, binding.function_id, binding.namespace), []).append(binding)

    def trigger_of(span: Span) -> tuple[str | None, str | None]:
        fitting = found.get((span.origin, span.function_id, span.namespace))
        if span.caller is not None or not fitting or len({binding.trigger_type for binding in fitting}) > 1:
            return None, None
        return fitting[0].trigger_type, fitting[0].id if len(fitting) == 1 else None

    return trigger_of
