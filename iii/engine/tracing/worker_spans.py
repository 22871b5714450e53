"""Spans that workers open themselves, validated: a peer may send anything as a span. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Literal

from msgspec import DecodeError, Meta, Raw, Struct

from iii.protocol.codec import decode_value

# Bytes of one span as JSON.
MAX_SIZE = 64 * 1024

_TraceId = Annotated[str, Meta(pattern="^(?!0{32})[0-9a-f]{32}$")]
_SpanId = Annotated[str, Meta(pattern="^(?!0{16})[0-9a-f]{16}$")]
_Name = Annotated[str, Meta(max_length=256)]
_Nanoseconds = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class SpanEvent(Struct, gc=False):
    """Something that happened within a span."""

    name: _Name
    timestamp_unix_nano: _Nanoseconds
    attributes: list[tuple[str, str]] = []


class WorkerSpan(Struct, omit_defaults=False):
    """A span as a worker sends it. The engine sets `service_name` and `flags` before it hands the span over."""

    trace_id: _TraceId
    span_id: _SpanId
    parent_span_id: _SpanId | None
    name: _Name
    start_time_unix_nano: _Nanoseconds
    end_time_unix_nano: _Nanoseconds
    status: Literal["ok", "error", "unset"] = "unset"
    status_description: str = ""
    attributes: dict[str, str | int | float | bool] = {}
    events: list[SpanEvent] = []
    links: list[None] = []
    flags: Annotated[int, Meta(ge=0, le=255)] = 1
    service_name: str = ""
    instrumentation_scope_name: str = "iii.worker"


def worker_spans_in(array: Raw) -> Iterator[WorkerSpan | None]:
    """Yield the spans in an array that a worker has sent; None for an item that is no span."""
    try:
        items = decode_value(array, type=list[Raw])
    except (DecodeError, RecursionError):
        return
    for item in items:
        span = None
        if len(item) <= MAX_SIZE:
            with suppress(DecodeError, RecursionError):
                span = decode_value(item, type=WorkerSpan)
        yield span
