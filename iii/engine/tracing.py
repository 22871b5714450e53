"""The spans of calls: which call gets one, what it is part of, what became of it. Pure: ids and clock are handed in.

Made when somebody takes the feed, and gone with them (`feed.py`); `traced_calls.py` and `router.py` tell it of the
beginning and the end of calls. A span holds what it was told, unread: how it looks outside is `span_form.py`'s, and is
only worked out for what is handed over.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec import Struct

from iii.engine.invocation import Invocation
from iii.engine.peer import Owner, Peer
from iii.engine.registry import Function
from iii.engine.sampling import Sampler
from iii.protocol.codec import decode_value
from iii.protocol.messages import ABSENT, ActionField, CallerField, ErrorBody, InvokeFunction

# Spans that wait to be handed over; over it the newest is dropped, and no new trace is begun.
MAX_FINISHED = 20_000
# Traces that came undecided from outside, and what was decided: each is asked about again by its later calls.
MAX_DECIDED = 8192
# Characters of anything a caller may choose, and of an error's message.
MAX_ID, MAX_MESSAGE = 256, 2048

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED, _RANDOM = 1, 2
VOID = ActionField("void")


class TraceContext(NamedTuple):
    """A parsed `traceparent`."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def is_undecided(self) -> bool:
        """Whether nobody has decided yet if the trace is recorded: a random id and nothing more."""
        return self.flags & (_SAMPLED | _RANDOM) == _RANDOM


def context_from(traceparent: str | None) -> TraceContext | None:
    """Return what a `traceparent` says; None for none, and for one that is not valid."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return TraceContext(match[1], match[2], int(match[3], 16)) if match else None


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

    @property
    def traceparent(self) -> str:
        """The context that continues this span."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class Tracer:
    """The spans under way and those that wait to be handed over.

    `mint(n)` returns n random bits, `clock()` monotonic seconds; `on_first()` is called when something begins to wait.
    """

    def __init__(
        self,
        sampler: Sampler,
        in_flight: Mapping[str, Invocation],
        *,
        mint: Callable[[int], int],
        clock: Callable[[], float],
        on_first: Callable[[], None],
    ) -> None:
        self.sampler = sampler
        self.taker: Owner | None = None  # whose function takes the feed: neither it nor what it does is traced
        self.spans: dict[str, Span] = {}
        self.finished: list[Span] = []
        self.begun: list[Span] | None = None  # since the last look, when spans under way are wanted too
        self.dropped = 0
        self._in_flight = in_flight
        self._mint = mint
        self._clock = clock
        self._on_first = on_first
        self._decided: OrderedDict[str, bool] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Tracer {len(self.spans)} spans under way, {len(self.finished)} finished>"

    def ignores(self, message: InvokeFunction, now: float) -> bool:
        """Whether `begin` would do nothing: a call that nobody has a trace for, while none may begin. Fast."""
        return now < self.sampler.closed_until and message.traceparent is None and message.caller is ABSENT

    # A call arrives

    def begin(
        self,
        origin: Peer,
        message: InvokeFunction,
        function: Function | None,
        now: float,
        action: ActionField | None = None,
    ) -> bool:
        """Give the call a span if its trace is recorded. Its message then carries the span on: True."""
        if function is not None and function.owner is self.taker:
            return False
        caller = _caller_of(message)
        place = self._place(origin, message, function, caller, now)
        if place is None:
            return False
        span = Span(
            place[0],
            place[2],
            place[1],
            str(message.invocation_id)[:MAX_ID],
            message.function_id[:MAX_ID],
            (message.namespace or "default")[:MAX_ID],
            origin,
            None if function is None else function.owner,
            self._clock(),
            (caller.function_id or "")[:MAX_ID] or None if caller else None,
            action,
        )
        message.traceparent = span.traceparent
        self.spans[message.invocation_id or ""] = span
        if self.begun is not None:
            self.begun.append(span)
            if len(self.begun) == 1:
                self._on_first()
        return True

    def _place(
        self, origin: Peer, message: InvokeFunction, function: Function | None, caller: CallerField | None, now: float
    ) -> tuple[str, str | None, str] | None:
        """Return trace, parent and id of the call's span; None when it gets none."""
        context = context_from(message.traceparent)
        if context is None and caller is not None:
            parent = self._running(caller, origin)
            return None if parent is None else (parent.trace_id, parent.span_id, f"{self._mint(64):016x}")
        if context is None:
            return self._root(origin, message.function_id, function, now)
        is_recorded = self._decide(context, origin, message.function_id, function, now)
        return (context.trace_id, context.span_id, f"{self._mint(64):016x}") if is_recorded else None

    def _running(self, caller: CallerField, origin: Peer) -> Span | None:
        """Return the span of the running call that makes this one. A peer can only speak for what runs on it."""
        invocation = self._in_flight.get(caller.invocation_id or "")
        if invocation is None or invocation.callee is not origin:
            return None
        return self.spans.get(invocation.id)

    def _root(
        self, origin: Peer, function_id: str, function: Function | None, now: float
    ) -> tuple[str, str | None, str] | None:
        ids = f"{self._mint(192):048x}"
        return (ids[:32], None, ids[32:]) if self._starts(ids[:32], origin, function_id, function, now) else None

    def _decide(
        self, context: TraceContext, origin: Peer, function_id: str, function: Function | None, now: float
    ) -> bool:
        """Whether a call is recorded that came with a context."""
        if not context.is_undecided:
            return self.sampler.follows(context.trace_id, is_sampled=bool(context.flags & _SAMPLED))
        decided = self._decided.get(context.trace_id)
        if decided is None:
            decided = self._starts(context.trace_id, origin, function_id, function, now)
            self._decided[context.trace_id] = decided
            if len(self._decided) > MAX_DECIDED:
                self._decided.popitem(last=False)
        return decided

    def _starts(self, trace_id: str, origin: Peer, function_id: str, function: Function | None, now: float) -> bool:
        """Whether a new trace is recorded."""
        owner = function.owner if function is not None else None
        if origin.kind == "engine" or origin.owner is self.taker or _is_builtin(function):
            return False
        if not self.sampler.starts(trace_id, function_id, owner.name if owner else "iii", now):
            return False
        if len(self.finished) >= MAX_FINISHED:
            self.dropped += 1
            return False
        return True

    # A call goes on, and ends

    def dispatched(self, invocation: Invocation) -> None:
        """The call was given to a worker that it had waited for."""
        span = self.spans.get(invocation.id)
        if span is not None:
            span.dispatched = self._clock()

    def end(self, id: str, invocation: Invocation | None, error: tuple[str, str] | None) -> None:
        """The call has its outcome; one without a span is none of ours."""
        span = self.spans.pop(id, None)
        if span is None:
            return
        span.end = self._clock()
        span.error = error
        if invocation is not None:
            span.callee = invocation.callee
            span.owner = invocation.function.owner
            span.attempt = invocation.attempt
        finished = self.finished
        if len(finished) >= MAX_FINISHED:
            self.dropped += 1
            return
        finished.append(span)
        if len(finished) == 1:
            self._on_first()

    # The feed

    def take_dropped(self) -> int:
        """Return how many spans were dropped since the last time."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def take(self, count: int) -> list[Span]:
        """Hand over the oldest finished spans, at most `count`."""
        taken = self.finished[:count]
        del self.finished[:count]
        return taken

    def take_pending(self, count: int) -> list[Span]:
        """Return spans that began since the last look and have not ended; the rest of them is not told."""
        begun, self.begun = self.begun or [], None if self.begun is None else []
        return [span for span in begun if not span.end][:count]


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


def _is_builtin(function: Function | None) -> bool:
    """Whether the engine itself runs it."""
    return function is not None and function.sole is not None and function.sole.kind == "engine"
