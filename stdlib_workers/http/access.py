"""What became of each request: a line on stderr, where the engine takes it up, and a span of its trace.

A line names method, path, status, function and time; never the query, which is where tokens end up. The span has
OpenTelemetry's names for HTTP servers. Those of a burst leave in one write.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from time import perf_counter, time_ns
from typing import Any

# Long enough for a burst to share one write, short enough to be there when somebody looks.
GATHER_SECONDS = 0.05
# In one message to the engine.
MAX_SPANS = 1000
MAX_PATH = 200


class Outcome:
    """One request, from now on, and what becomes of it. `route` is its path's template, `error` a failure's code."""

    __slots__ = (
        *("method", "path", "trace", "route", "function_id", "error", "status"),
        *("_parent", "_began", "_started", "_seconds"),
    )

    def __init__(self, method: str, path: str, trace: dict[str, str], parent: str | None) -> None:
        self.method = method
        self.path = path
        self.trace = trace
        self.route = self.function_id = self.error = ""
        self.status = 0
        self._parent = parent
        self._began, self._started = time_ns(), perf_counter()
        self._seconds = 0.0

    def end(self) -> None:
        """Stop the clock."""
        self._seconds = perf_counter() - self._started

    @property
    def line(self) -> str:
        """The line of the log."""
        path = printable(self.path)[:MAX_PATH]
        broken = f" broken off: {self.error}" if self.error and self.status < 400 else ""
        return f"{self.method} {path} {self.status} {self.function_id or '-'} {self._seconds * 1000:.1f} ms{broken}"

    @property
    def span(self) -> dict[str, Any]:
        """The span, as the SDK sends it. What the client did wrong is no error of the server's (OpenTelemetry)."""
        _, trace_id, span_id, flags = self.trace["traceparent"].split("-")
        has_failed = self.status >= 500 or (bool(self.error) and self.status < 400)
        attributes = {
            "http.request.method": self.method,
            "url.scheme": "http",
            "url.path": self.path[:MAX_PATH],
            "http.response.status_code": self.status,
        }
        if self.route:
            attributes["http.route"] = self.route[:MAX_PATH]
        if has_failed:
            attributes["error.type"] = self.error or str(self.status)
        return {
            "name": f"{self.method} {self.route}".strip()[:MAX_PATH],
            "trace_id": trace_id,
            "span_id": span_id,
            "parent_span_id": self._parent,
            "flags": int(flags, 16),
            "start_time_unix_nano": self._began,
            "end_time_unix_nano": self._began + int(self._seconds * 1e9),
            "status": "error" if has_failed else "unset",
            "status_description": self.error if has_failed else "",
            "attributes": attributes,
        }


class AccessLog:
    """Gathers lines and spans, and writes them. `is_on` False keeps the lines of what went wrong and drops the rest."""

    def __init__(self, *, is_on: bool, record_spans: Callable[[list[dict[str, Any]]], None] | None = None) -> None:
        self._is_on = is_on
        self._record_spans = record_spans
        self._lines: list[str] = []
        self._ended: list[Outcome] = []
        self._is_waiting = False

    def note(self, outcome: Outcome) -> None:
        """Note what became of one request."""
        outcome.end()
        if self._is_on:
            self._lines.append(outcome.line)
        # The flags 00: somebody has decided that the trace is not recorded.
        if self._record_spans is not None and not outcome.trace["traceparent"].endswith("-00"):
            self._ended.append(outcome)
        self._flush_soon()

    def warn(self, text: str) -> None:
        """Write something that its author must see."""
        self._lines.append(printable(text))
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
            if self._record_spans is not None:
                self._record_spans([outcome.span for outcome in ended[start : start + MAX_SPANS]])


def printable(text: str) -> str:
    """Return the text with everything escaped that a terminal would act on or a log take for a new line."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
