"""Spans that a worker opens itself, and the trace that its code runs in.

The parent of a span is the span around it, or else the invocation's. Calls, log records and spans within it are its
children. A span is sent when it has ended, and only if its trace is recorded; otherwise it costs its own begin. What
one span holds is bounded; what is left out is counted.
"""

from __future__ import annotations

import os
import time
from contextvars import ContextVar

from iii.worker.codec.text import text_of
from iii.worker.context.invocation import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Any

    from iii.worker.codec.codec import Message
    from iii.worker.context.invocation import InvocationContext

# Flags of a trace context: recorded; a random trace id of which the engine is to decide whether it is recorded.
_RECORDED, _UNDECIDED = "01", "02"
# Attributes and events of one span (OpenTelemetry's limits), and bytes of both: the engine takes spans up to 64 KiB.
MAX_ATTRIBUTES, MAX_EVENTS, MAX_BYTES = 128, 128, 40 * 1024
# Bytes that an attribute or an event has beside its texts.
_OVERHEAD = 64


class Span:
    """One piece of work: `with worker.span("resize", {"pixels": n}) as span`. An exception makes it an error.

    `trace` is what continues the span in a message, empty when the trace is not recorded.
    """

    def __init__(self, name: str, attributes: Mapping[str, Any] | None, send: Callable[[Message], None]) -> None:
        self._room = MAX_BYTES
        self._left_out = 0  # attributes and events
        self.name = name
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.trace: dict[str, str] = {}
        self.invocation: InvocationContext | None = None
        self._events: list[dict[str, Any]] = []
        self._fields: dict[str, Any] = {}
        self._send = send
        self._token: Token[Span | None] | None = None

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context that continues this span, None when the trace is not recorded."""
        return self.trace.get("traceparent")

    def set(self, name: str, value: Any) -> None:
        """Set an attribute: a string, a number or a boolean; anything else becomes text.

        A span has at most 128 attributes and 128 events, 40 KiB in all; `iii.left_out` counts further ones.
        """
        if len(self.attributes) < MAX_ATTRIBUTES or name in self.attributes:
            self.attributes[name] = value
        else:
            self._left_out += 1

    def event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event that happens now; its attributes become text."""
        pairs = [[key, text_of(value)] for key, value in (attributes or {}).items()]
        if len(self._events) < MAX_EVENTS and self._takes(name, *[text for pair in pairs for text in pair]):
            self._events.append({"name": name, "timestamp_unix_nano": time.time_ns(), "attributes": pairs})
        else:
            self._left_out += 1

    def _takes(self, *texts: object) -> bool:
        """Return whether there is room for these texts, and take it."""
        size = _OVERHEAD + sum(len(text_of(text).encode(errors="replace")) for text in texts)
        has_room = size <= self._room
        self._room -= size if has_room else 0
        return has_room

    def __enter__(self) -> Span:
        outer = current_trace()
        self.invocation = CURRENT.get()
        parts = outer.get("traceparent", "").split("-")
        is_new = len(parts) < 4
        if is_new and self.invocation is None:
            trace_id, parent_id, flags = os.urandom(16).hex(), None, _UNDECIDED
        elif is_new or parts[3] not in (_RECORDED, _UNDECIDED):
            return self
        else:
            trace_id, parent_id, flags = parts[1], parts[2], parts[3]
        span_id = os.urandom(8).hex()
        self.trace = {**outer, "traceparent": f"00-{trace_id}-{span_id}-{flags}"}
        self._fields = {"trace_id": trace_id, "span_id": span_id, "parent_span_id": parent_id, "flags": int(flags)}
        self._fields["start_time_unix_nano"] = time.time_ns()
        self._token = _SPAN.set(self)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is None:
            return
        _SPAN.reset(self._token)
        fields = {"name": self.name, **self._fields, "end_time_unix_nano": time.time_ns(), "status": "ok"}
        if error_type is not None:
            fields |= {"status": "error", "status_description": f"{error_type.__name__}: {text_of(error)}"}
        attributes: dict[str, Any] = {}
        for key, value in self.attributes.items():
            plain = value if isinstance(value, str | int) or _is_finite(value) else text_of(value)
            if len(attributes) < MAX_ATTRIBUTES and self._takes(key, plain):
                attributes[text_of(key)] = plain
            else:
                self._left_out += 1
        if self._left_out:
            attributes["iii.left_out"] = self._left_out
        self._send({**fields, "attributes": attributes, "events": self._events})


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and value - value == 0


_SPAN: ContextVar[Span | None] = ContextVar("iii_span", default=None)


class Tracing:
    """The part of `Worker` that opens spans."""

    _send_span: Callable[[Message], None]

    def span(self, name: str, attributes: Mapping[str, Any] | None = None) -> Span:
        """Return a span to open with `with`: its time, attributes and outcome become part of the running trace.

        Attributes are strings, numbers or booleans; anything else becomes text. Outside of an invocation the span
        begins a trace of its own.

            with worker.span("resize", {"pixels": n}) as span:
                span.set("format", resize(image))
        """
        return Span(name, attributes, self._send_span)


def current_trace() -> dict[str, str]:
    """Return the `traceparent` and `baggage` of the running span or invocation, those that exist."""
    span, invocation = _SPAN.get(), CURRENT.get()
    # A thread that waits in a call runs other invocations meanwhile: the span around its call is not theirs.
    if span is not None and span.invocation is invocation:
        return span.trace
    return {} if invocation is None else invocation.trace
