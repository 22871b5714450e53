"""The spans of calls: which call gets one, what it is part of, what became of it. Pure: ids and clock are handed in.

Made when somebody takes the feed, and gone with them (`feed.py`); `traced_calls.py` and `router.py` tell it of the
beginning and the end of calls. A span holds what it was told, unread: how it looks outside is `span_form.py`'s, and is
only worked out for what is handed over.

Theory of operation. New traces begin only while the gate is open. It shuts when the rate limit is used up and when too
many spans wait to be handed over; `shut_until` says for how long. While it is shut, a call that nobody has a trace for
does not come here at all: the router gives it to the plain table (`Router.trace`). What belongs to a trace that is
recorded already is recorded to its end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from msgspec import Raw, Struct

from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.registry import Function
from iii.engine.tracing.bounded_queue import Backlog
from iii.engine.tracing.sampling import Sampler
from iii.engine.tracing.trace_context import TraceContext, context_from
from iii.engine.tracing.worker_spans import WorkerSpan, raw_items, worker_span_from
from iii.protocol.codec import decode_value
from iii.protocol.messages import ABSENT, ActionField, CallerField, ErrorBody, InvokeFunction

# Spans that wait to be handed over. Over the first bound no new trace begins, over the second a span is dropped.
MAX_WAITING, MAX_FINISHED = 10_000, 20_000
# Traces that came undecided from outside, and what was decided: each is asked about again by its later calls.
MAX_DECIDED = 8192
# Characters of anything a caller may choose, and of an error's message.
MAX_ID, MAX_MESSAGE = 256, 2048
# Bytes of payloads that are kept with spans under way and waiting; later ones are told as cut off.
MAX_PAYLOADS = 16 * 1024 * 1024
# Bytes of the spans that workers have opened themselves, waiting.
MAX_FOREIGN = 16 * 1024 * 1024
FOREVER = float("inf")
VOID = ActionField("void")


class Span(Struct, gc=False, eq=False):
    """One recorded call. Times are monotonic seconds; 0.0: not yet. `gc=False`: nothing that it names names it."""

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
    error: tuple[str, str] | None = None
    payload: Raw | None = None
    is_payload_cut: bool = False


class Outside(Struct, frozen=True):
    """What a tracer needs: random bits, monotonic seconds, and whom to tell.

    `on_finished()`: something waits to be handed over. `on_gate()`: the gate opened or shut, or the last span ended
    while it is shut.
    """

    mint: Callable[[int], int]
    clock: Callable[[], float]
    on_finished: Callable[[], None]
    on_gate: Callable[[], None]


class Tracer:
    """The spans under way and those that wait to be handed over."""

    def __init__(self, sampler: Sampler, in_flight: Mapping[str, Invocation], outside: Outside) -> None:
        self.sampler = sampler
        self.taker: Owner | None = None  # whose function takes the feed: neither it nor what it does is traced
        self.spans: dict[str, Span] = {}
        self.finished: list[Span] = []
        self.foreign: Backlog[WorkerSpan] = Backlog(MAX_FINISHED, MAX_FOREIGN)  # opened by workers themselves
        self.begun: list[Span] | None = None  # since the last look, when spans under way are wanted too
        self.max_waiting, self.max_finished = MAX_WAITING, MAX_FINISHED
        self.payloads = 0  # bytes of the longest payload that is kept with its span
        self.dropped = 0
        self.shut_until = FOREVER if sampler.is_closed else 0.0  # no new trace begins before; 0.0: the gate is open
        self._is_full = False
        self._payload_room = MAX_PAYLOADS
        self._in_flight = in_flight
        self._mint = outside.mint
        self._clock = outside.clock
        self._on_finished = outside.on_finished
        self._on_gate = outside.on_gate
        self._decided: OrderedDict[str, bool] = OrderedDict()

    def __repr__(self) -> str:
        gate = "shut" if self.shut_until else "open"
        return f"<Tracer {gate}, {len(self.spans)} spans under way, {len(self.finished)} finished>"

    # The gate

    def shut(self, until: float) -> None:
        """Begin no new trace until then (monotonic seconds)."""
        self.shut_until = until
        self._on_gate()

    def reopen(self) -> None:
        """Let new traces begin again, unless too many spans wait."""
        if self.shut_until and not self._is_full and not self.sampler.is_closed:
            self.shut_until = 0.0
            self._on_gate()

    @property
    def is_full(self) -> bool:
        """Whether the gate is shut because too many spans wait."""
        return self._is_full

    # A call arrives

    def begin_root(self, origin: Peer, message: InvokeFunction, function: Function | None, now: float) -> bool:
        """Begin a trace with a plain call that comes with none, if it is to be recorded. Its message carries it on."""
        if function is not None and (function.owner is self.taker or _is_builtin(function)):
            return False
        if origin.kind == "engine" or origin.owner is self.taker:
            return False
        ids = f"{self._mint(192):048x}"
        trace_id = ids[:32]
        if not self._starts(trace_id, message.function_id, function, now):
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
        """Give any call a span if its trace is recorded. Its message then carries the span on."""
        if function is not None and function.owner is self.taker:
            return False
        context = context_from(message.traceparent)
        caller = _caller_of(message)
        if context is not None:
            if not self._decide(context, origin, message.function_id, function, now):
                return False
            span = self._add(f"{self._mint(64):016x}", context.trace_id, context.span_id, origin, message, function)
        elif caller is not None:
            parent = self._running(caller, origin)
            if parent is None:
                return False
            span = self._add(f"{self._mint(64):016x}", parent.trace_id, parent.span_id, origin, message, function)
        elif self.shut_until or not self.begin_root(origin, message, function, now):
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
        if self.payloads:
            self._keep_payload(span, message.data)
        message.traceparent = f"00-{trace_id}-{span_id}-01"
        if self.begun is not None:
            self.begun.append(span)
            self._on_finished()
        if self.shut_until and len(self.spans) == 1:
            self._on_gate()
        return span

    def _keep_payload(self, span: Span, payload: Raw) -> None:
        size = len(payload)
        if size > self.payloads or size > self._payload_room:
            span.is_payload_cut = True
        else:
            self._payload_room -= size
            span.payload = payload

    def _running(self, caller: CallerField, origin: Peer) -> Span | None:
        """Return the span of the running call that makes this one. A peer can only speak for what runs on it."""
        invocation = self._in_flight.get(caller.invocation_id or "")
        if invocation is None or invocation.callee is not origin:
            return None
        return self.spans.get(invocation.id)

    def _decide(
        self, context: TraceContext, origin: Peer, function_id: str, function: Function | None, now: float
    ) -> bool:
        """Whether a call is recorded that came with a context."""
        if not context.is_undecided:
            return self.sampler.follows(context.trace_id, is_sampled=context.is_sampled)
        decided = self._decided.get(context.trace_id)
        if decided is None:
            is_ours = origin.owner is not self.taker and not self.shut_until
            decided = is_ours and self._starts(context.trace_id, function_id, function, now)
            self._decided[context.trace_id] = decided
            if len(self._decided) > MAX_DECIDED:
                self._decided.popitem(last=False)
        return decided

    def _starts(self, trace_id: str, function_id: str, function: Function | None, now: float) -> bool:
        """Whether a new trace is recorded; shuts the gate when there can be no other one soon."""
        if len(self.finished) >= self.max_waiting:
            self._is_full = True
            self.dropped += 1
            self.shut(FOREVER)
            return False
        service = function.owner.name if function is not None else ""
        starts = self.sampler.starts(trace_id, function_id, service, now)
        if self.sampler.spent_until > now:
            self.shut(self.sampler.spent_until)
        return starts

    # A call goes on, and ends

    def dispatched(self, invocation: Invocation) -> None:
        """The call was given to a worker that it may have waited for."""
        span = self.spans.get(invocation.id)
        if span is not None:
            span.dispatched = self._clock()
            span.attempt = invocation.attempt

    def end(self, id: str, invocation: Invocation | None, error: tuple[str, str] | None) -> None:
        """The call has its outcome; one without a span is none of ours."""
        span = self.spans.pop(id, None)
        if span is None:
            return
        span.end = self._clock()
        if error is not None:
            span.error = error
        if invocation is not None:
            span.callee = invocation.callee
            span.owner = invocation.function.owner
        if self.shut_until and not self.spans:
            self._on_gate()
        if len(self.finished) >= self.max_finished:
            self.dropped += 1
            self._release(span)
            return
        if len(span.function_id) > MAX_ID or len(id) > MAX_ID:  # of a function that does not exist
            span.function_id, span.invocation_id = span.function_id[:MAX_ID], id[:MAX_ID]
        self.finished.append(span)
        if len(self.finished) == 1:
            self._on_finished()

    def take_foreign(self, origin: Peer, spans: Raw) -> None:
        """Let the spans of a worker wait that belong to recorded traces; what is no span is dropped and counted."""
        if self.foreign.is_full:  # to look at them would cost more than to lose them
            self.foreign.dropped += bytes(spans).count(b'"trace_id"')
            return
        for raw in raw_items(spans):
            span = worker_span_from(raw)
            if span is None:
                self.foreign.dropped += 1
            elif origin.owner is not self.taker and self._decide(span.context, origin, span.name, None, self._clock()):
                span.service_name, span.flags = (origin.name or origin.id)[:MAX_ID], 1
                self.foreign.add(span, len(raw))
                self._on_finished()

    def _release(self, span: Span) -> None:
        if span.payload is not None:
            self._payload_room += len(span.payload)

    # The feed

    def take(self, count: int) -> list[Span]:
        """Hand over the oldest finished spans, at most `count`; half empty again, the gate opens."""
        taken = self.finished[:count]
        del self.finished[:count]
        for span in taken:
            self._release(span)
        if self._is_full and len(self.finished) <= self.max_waiting // 2:
            self._is_full = False
            self.reopen()
        return taken

    def take_pending(self, count: int) -> list[Span]:
        """Return spans that began since the last look and have not ended; the rest of them is not told."""
        begun, self.begun = self.begun or [], None if self.begun is None else []
        return [span for span in begun if not span.end][:count]

    def take_dropped(self) -> int:
        """Return how many spans were dropped since the last time."""
        dropped, self.dropped = self.dropped, 0
        return dropped + self.foreign.take_dropped()


def error_from(body: ErrorBody) -> tuple[str, str]:
    """Return code and message of an error, cut to what a span keeps."""
    return body.code[:MAX_ID], body.message[:MAX_MESSAGE]


def _caller_of(message: InvokeFunction) -> CallerField | None:
    if message.caller is ABSENT:
        return None
    try:
        return decode_value(message.caller, type=CallerField)
    except ValueError:
        return None


def _is_builtin(function: Function) -> bool:
    """Whether the engine itself runs it."""
    return function.sole is not None and function.sole.kind == "engine"
