"""What became of each request: a line on stderr, where the engine takes it up, and a span of its trace.

A line names method, path, status, function and time; never the query, which is where tokens end up. The span has
OpenTelemetry's names for HTTP servers. Those of a burst leave in one write.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

from stdlib_workers.http.requests import Request

# Long enough for a burst to share one write, short enough to be there when somebody looks.
GATHER_SECONDS = 0.05
# In one message to the engine.
MAX_SPANS = 1000
MAX_PATH = 200


class AccessLog:
    """Gathers lines and spans, and writes them. `is_on` False keeps the lines of what went wrong and drops the rest."""

    def __init__(self, *, is_on: bool, record_spans: Callable[[list[dict[str, Any]]], None] | None = None) -> None:
        self.is_on = is_on
        self._record_spans = record_spans
        self._lines: list[str] = []
        self._ended: list[tuple[Request, float]] = []
        self._is_waiting = False

    def note(self, request: Request) -> None:
        """Note what became of one request, which has ended now."""
        seconds = perf_counter() - request.began
        if self.is_on:
            self._lines.append(_line_of(request, seconds))
        # The flags 00: somebody has decided that the trace is not recorded.
        if self._record_spans is not None and not request.trace["traceparent"].endswith("-00"):
            self._ended.append((request, seconds))
        self._flush_soon()

    def warn(self, text: str) -> None:
        """Write something that its author must see."""
        self._lines.append(_printable(text))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_waiting and (self._lines or self._ended):
            self._is_waiting = True
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what has been gathered."""
        self._is_waiting = False
        lines, self._lines = self._lines, []
        ended, self._ended = self._ended, []
        if lines:
            sys.stderr.write("\n".join(lines) + "\n")
            sys.stderr.flush()
        for start in range(0, len(ended), MAX_SPANS):
            assert self._record_spans is not None
            self._record_spans([_span_of(*each) for each in ended[start : start + MAX_SPANS]])


def _line_of(request: Request, seconds: float) -> str:
    broken = f" broken off: {request.error}" if request.error and request.status < 400 else ""
    path = _printable(request.path)[:MAX_PATH]
    return f"{request.method} {path} {request.status} {request.function_id} {seconds * 1000:.1f} ms{broken}"


def _span_of(request: Request, seconds: float) -> dict[str, Any]:
    """Return the span, as the SDK sends it. What the client did wrong is no error of the server's (OpenTelemetry)."""
    _, trace_id, span_id, flags = request.trace["traceparent"].split("-")
    has_failed = request.status >= 500 or (bool(request.error) and request.status < 400)
    attributes = {
        "span.kind": "server",
        "http.request.method": request.method,
        "url.scheme": "http",
        "url.path": request.path[:MAX_PATH],
        "http.response.status_code": request.status,
    }
    route = request.route.template if request.route else ""
    if route:
        attributes["http.route"] = route[:MAX_PATH]
    if has_failed:
        attributes["error.type"] = request.error or str(request.status)
    return {
        "name": f"{request.method} {route}".strip()[:MAX_PATH],
        "trace_id": trace_id,
        "span_id": span_id,
        "parent_span_id": request.parent,
        "flags": int(flags, 16),
        "start_time_unix_nano": request.began_at,
        "end_time_unix_nano": request.began_at + int(seconds * 1e9),
        "status": "error" if has_failed else "unset",
        "status_description": request.error if has_failed else "",
        "attributes": attributes,
    }


def _printable(text: str) -> str:
    """Return the text with everything escaped that a terminal would act on or a log take for a new line."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
