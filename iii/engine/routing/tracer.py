"""The spans of calls: which call gets one, its place in its trace, its outcome. Pure: ids and clock are handed in.

A tracer exists while a worker subscribes to telemetry. The router and the call table report the beginning and the end
of calls to it. A span keeps the values it gets as they are; only telemetry makes them into JSON.

Theory of operation. The tracer pauses when the rate limit is used up, and when too many finished spans wait to be
handed over; `paused_until` says for how long. While it is paused no new trace begins, and the router takes calls that
belong to no trace past it (`Router.choose_path`). A trace that is recorded already is recorded to its end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from msgspec import Raw, Struct

from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.registry import Function
from iii.engine.tracing.bounded_queue import BoundedQueue
from iii.engine.tracing.sampling import Sampler
from iii.engine.tracing.trace_context import TraceContext, context_from
from iii.engine.tracing.worker_spans import WorkerSpan, worker_spans_in
from iii.protocol.codec import decode_value
from iii.protocol.messages import ABSENT, ActionField, CallerField, ErrorBody, InvokeFunction, is_empty

# Finished spans that wait to be handed over. At the first bound no new trace begins, at the second spans are dropped.
PAUSE_AT, MAX_FINISHED = 10_000, 20_000
# Decisions kept about traces that came undecided from outside: later calls of the same trace follow them.
MAX_DECIDED = 8192
# Characters of anything a caller may choose, of an error's message, and of the end of its stack trace.
MAX_ID, MAX_MESSAGE, MAX_STACK = 256, 2048, 4096
# Bytes of all payloads kept with spans; a span over the bound says that its payload was cut.
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
# Bytes of the spans sent by workers that wait to be handed over.
MAX_WORKER_SPAN_BYTES = 16 * 1024 * 1024
FOREVER = float("inf")
# The action of a call without an id: its span shows it as void.
VOID = ActionField("void")


# Code, message and stack trace of an error, as a span keeps them; "" for no stack trace.
SpanError = tuple[str, str, str]


class Span(Struct, gc=False, eq=False):
    """One recorded call. Times are monotonic seconds; 0.0: not yet. `gc=False`: no cycle leads through a span."""

    trace_id: str
    span_id: str
    parent_id: str | None
    invocation_id: str
    function_id: str
    namespace: str
    origin: Peer
    owner: Owner | None
    start: float
    caller: str | None = None
    action: ActionField | None = None
    dispatched: float = 0.0
    end: float = 0.0
    callee: Peer | None = None
    attempt: int = 1
    error: SpanError | None = None
    payload: Raw | None = None
    is_payload_cut: bool = False


class Tracer:
    """The spans under way, and the finished ones that wait to be handed over.

    `mint(bits)` returns random bits, `clock()` monotonic seconds. `on_finished()`: something waits to be handed over.
    `on_state_changed()`: the tracer paused or resumed, or the first span of a pause began or the last one ended.
    """

    def __init__(
        self,
        sampler: Sampler,
        in_flight: Mapping[str, Invocation],
        *,
        mint: Callable[[int], int],
        clock: Callable[[], float],
        on_finished: Callable[[], None],
        on_state_changed: Callable[[], None],
    ) -> None:
        self.sampler = sampler
        self.spans: dict[str, Span] = {}
        self.finished: list[Span] = []
        self.worker_spans: BoundedQueue[tuple[str, Raw]] = BoundedQueue(MAX_FINISHED, MAX_WORKER_SPAN_BYTES)
        # The spans of the message that is being handed over.
        self._reading: Iterator[WorkerSpan | None] | None = None
        self.newly_begun: list[Span] | None = None  # since the last `take_pending`; None: not wanted
        self.pause_at, self.max_finished = PAUSE_AT, MAX_FINISHED
        self.max_payload = 0  # bytes of the longest payload that is kept with its span
        self.dropped = 0
        self.ended = 0  # spans, since this tracer was made
        self.paused_until = FOREVER if sampler.is_closed else 0.0  # monotonic seconds; 0.0: not paused
        self.is_full = False  # paused because too many finished spans wait
        self._payload_room = MAX_PAYLOAD_BYTES
        self._in_flight = in_flight
        self._mint = mint
        self._clock = clock
        self._on_finished = on_finished
        self._on_state_changed = on_state_changed
        self._decided: OrderedDict[str, bool] = OrderedDict()

    # New traces

    def pause(self, until: float) -> None:
        """Begin no new trace until this time (monotonic seconds)."""
        self.paused_until = until
        self._on_state_changed()

    def resume(self) -> None:
        """Let new traces begin again, unless too many spans wait."""
        if self.paused_until and not self.is_full and not self.sampler.is_closed:
            self.paused_until = 0.0
            self._on_state_changed()

    # A call arrives

    def begin_root(self, origin: Peer, message: InvokeFunction, function: Function | None, now: float) -> bool:
        """Begin a trace with a call that belongs to none, if it is to be recorded: its message then carries it."""
        if origin.kind == "engine" or origin.owner.is_observer:
            return False
        if function is not None and function.owner.is_observer:
            return False
        ids = f"{self._mint(192):048x}"
        trace_id = ids[:32]
        if not self._should_record(trace_id, message.function_id, function, now):
            return False
        self._add(ids[32:], trace_id, None, origin, message, function)
        return True

    def begin(
        self,
        origin: Peer,
        message: InvokeFunction,
        function: Function | None,
        now: float,
        action: ActionField | None = None,
    ) -> bool:
        """Give any call a span if its trace is recorded. Its message then carries the trace."""
        if origin.owner.is_observer:
            return False
        if function is not None and function.owner.is_observer:
            callee = function.direct_callee
            if callee is None or callee.kind != "engine":  # the engine's own functions are shown within a trace
                return False
        context = context_from(message.traceparent)
        caller: CallerField | None = None
        if message.caller is not ABSENT:
            with suppress(ValueError):
                caller = decode_value(message.caller, type=CallerField)
        if context is not None:
            if not self._decide(context, message.function_id, function, now):
                return False
            span = self._add(f"{self._mint(64):016x}", context.trace_id, context.span_id, origin, message, function)
        elif caller is not None:
            # A peer can only speak for calls that run on it.
            invocation = self._in_flight.get(caller.invocation_id or "")
            parent = self.spans.get(caller.invocation_id or "")
            if parent is None or invocation is None or invocation.callee is not origin:
                return False
            span = self._add(f"{self._mint(64):016x}", parent.trace_id, parent.span_id, origin, message, function)
        elif self.paused_until or not self.begin_root(origin, message, function, now):
            return False
        else:
            span = self.spans[str(message.invocation_id)]
        span.action = action
        span.caller = caller.function_id[:MAX_ID] if caller and caller.function_id else None
        return True

    def _add(
        self,
        span_id: str,
        trace_id: str,
        parent_id: str | None,
        origin: Peer,
        message: InvokeFunction,
        function: Function | None,
    ) -> Span:
        id: str = message.invocation_id  # type: ignore[assignment]  # void calls were given one
        span = self.spans[id] = Span(
            trace_id,
            span_id,
            parent_id,
            id,
            message.function_id,
            message.namespace or "default",
            origin,
            None if function is None else function.owner,
            self._clock(),
        )
        if self.max_payload:
            size = len(message.data)
            if size > self.max_payload or size > self._payload_room:
                span.is_payload_cut = True
            else:
                self._payload_room -= size
                span.payload = message.data
        message.traceparent = f"00-{trace_id}-{span_id}-01"
        if self.newly_begun is not None:
            self.newly_begun.append(span)
            self._on_finished()
        if self.paused_until and len(self.spans) == 1:
            self._on_state_changed()
        return span

    def _decide(self, context: TraceContext, function_id: str, function: Function | None, now: float) -> bool:
        """Whether a call or span that came with a trace context is recorded."""
        if not context.is_undecided:
            return self.sampler.should_follow(context.trace_id, is_sampled=context.is_sampled)
        decided = self._decided.get(context.trace_id)
        if decided is None:
            may_begin = not self.paused_until
            decided = may_begin and self._should_record(context.trace_id, function_id, function, now)
            self._decided[context.trace_id] = decided
            if len(self._decided) > MAX_DECIDED:
                self._decided.popitem(last=False)
        return decided

    def _should_record(self, trace_id: str, function_id: str, function: Function | None, now: float) -> bool:
        """Whether a new trace is recorded. Pauses when no other one can be soon."""
        if len(self.finished) >= self.pause_at:
            self.is_full = True
            self.pause(FOREVER)
            return False
        service = function.owner.name if function is not None else ""
        should_sample = self.sampler.should_sample(trace_id, function_id, service, now)
        if self.sampler.spent_until > now:
            self.pause(self.sampler.spent_until)
        return should_sample

    # A call goes on, and ends

    def dispatched(self, invocation: Invocation) -> None:
        """The call was given to its callee, perhaps after it had waited, or again."""
        span = self.spans.get(invocation.id)
        if span is not None:
            span.dispatched = self._clock()
            span.attempt = invocation.attempt

    def end(self, id: str, invocation: Invocation | None, error: SpanError | None) -> None:
        """The call has its outcome: end its span, if it has one."""
        span = self.spans.pop(id, None)
        if span is None:
            return
        span.end = self._clock()
        self.ended += 1
        if error is not None:
            span.error = error
        if invocation is not None:
            span.callee = invocation.callee
            span.owner = invocation.function.owner
        if self.paused_until and not self.spans:
            self._on_state_changed()
        if len(self.finished) >= self.max_finished:
            self.dropped += 1
            self._release(span)
            return
        if len(span.function_id) > MAX_ID or len(id) > MAX_ID:  # longer than any registered function's
            span.function_id, span.invocation_id = span.function_id[:MAX_ID], id[:MAX_ID]
        self.finished.append(span)
        if len(self.finished) == 1:
            self._on_finished()

    def take_worker_spans(self, origin: Peer, spans: Raw) -> None:
        """Keep the spans that a worker sent, as they came: they are read when they are handed over."""
        size = len(spans)
        if origin.owner.is_observer:
            return
        if self.worker_spans.has_room(size):
            self.worker_spans.add(((origin.name or origin.id)[:MAX_ID], spans), size)
            self._on_finished()
        else:
            self.drop_worker_spans(bytes(spans))

    def drop_worker_spans(self, text: bytes) -> None:
        """Count the spans in a text that is not decoded: that would cost more than they are worth."""
        self.worker_spans.dropped += text.count(b'"trace_id"')

    @property
    def has_worker_spans(self) -> bool:
        """Whether `read_worker_spans` has something to read."""
        return self._reading is not None or bool(self.worker_spans)

    def read_worker_spans(self) -> Iterator[WorkerSpan | None]:
        """Yield the spans that workers sent and that belong to recorded traces, and None for each other one.

        What is no span is counted as dropped. Who stops before the end gets the rest the next time.
        """
        while self.has_worker_spans:
            if self._reading is None:
                self._reading = self._read(*self.worker_spans.take(1, 0)[0])
            for span in self._reading:  # noqa: UP028 - `yield from` would end it together with this generator
                yield span
            self._reading = None

    def _read(self, origin: str, spans: Raw) -> Iterator[WorkerSpan | None]:
        for span in worker_spans_in(spans):
            if span is None:
                self.worker_spans.dropped += 1
            else:
                context = TraceContext(span.trace_id, span.span_id, span.flags)
                if self._decide(context, span.name, None, self._clock()):
                    span.service_name, span.flags = origin, 1
                    yield span
                    continue
            yield None

    def _release(self, span: Span) -> None:
        if span.payload is not None:
            self._payload_room += len(span.payload)

    # Spans are handed over

    def take(self, count: int) -> list[Span]:
        """Hand over the oldest finished spans, at most `count`. A full tracer that is half empty again resumes."""
        taken = self.finished[:count]
        del self.finished[:count]
        for span in taken:
            self._release(span)
        if self.is_full and len(self.finished) <= self.pause_at // 2:
            self.is_full = False
            self.resume()
        return taken

    def take_pending(self, count: int) -> list[Span]:
        """Return spans that began since the last time and have not ended, at most `count`; the others are left out."""
        newly_begun, self.newly_begun = self.newly_begun or [], None if self.newly_begun is None else []
        return [span for span in newly_begun if not span.end][:count]

    def take_dropped(self) -> int:
        """Return how many spans were dropped since the last time."""
        dropped, self.dropped = self.dropped, 0
        return dropped + self.worker_spans.take_dropped()


def error_from(body: ErrorBody) -> SpanError:
    """Return code, message and stack trace of an error, cut to what a span keeps."""
    return body.code[:MAX_ID], body.message[:MAX_MESSAGE], (body.stacktrace or "")[-MAX_STACK:]


def error_in(result: Raw) -> SpanError | None:
    """As `error_from`, of the `error` field of a worker's result; None when it is null."""
    if is_empty(result):
        return None
    try:
        return error_from(decode_value(result, type=ErrorBody))
    except ValueError:
        return "UNKNOWN", "the worker's error has no code and message", ""
