"""`Logger`: what a worker says, as JSON lines on stderr, which the engine shows and keeps as that worker's log."""

from __future__ import annotations

import json
import sys
from time import time

from iii.worker.codec.encodability import plain_value
from iii.worker.context.invocation import CURRENT
from iii.worker.context.tracing import current_trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Logger:
    """Log with `data` beside the message. The running invocation's ids are added."""

    def __init__(
        self, trace_id: str | None = None, service_name: str = "", span_id: str | None = None, stream: Any = None
    ) -> None:
        self._fields = {"trace_id": trace_id, "service": service_name, "span_id": span_id}
        self._stream = stream

    def debug(self, message: str, data: Any = None) -> None:
        """Log a detail."""
        self._emit("debug", message, data)

    def info(self, message: str, data: Any = None) -> None:
        """Log an event."""
        self._emit("info", message, data)

    def warn(self, message: str, data: Any = None) -> None:
        """Log something that should not be."""
        self._emit("warn", message, data)

    def error(self, message: str, data: Any = None) -> None:
        """Log a failure."""
        self._emit("error", message, data)

    def _emit(self, level: str, message: str, data: Any) -> None:
        record: dict[str, Any] = {"time": time(), "level": level, "message": str(message)}
        record.update({key: value for key, value in self._fields.items() if value})
        invocation = CURRENT.get()
        if invocation is not None:
            record["function_id"] = invocation.function_id
            record["invocation_id"] = invocation.invocation_id
        traceparent = current_trace().get("traceparent")
        if traceparent:
            trace_id = trace_id_of(traceparent)
            if record.setdefault("trace_id", trace_id) == trace_id:
                record.setdefault("span_id", _span_id_of(traceparent))
        if data is not None:
            record["data"] = data
        # One write: lines of several threads must not mix.
        stream = self._stream or sys.stderr
        stream.write(json.dumps(record, default=_readable) + "\n")
        stream.flush()


def trace_id_of(traceparent: str) -> str:
    """Return the trace id in a `version-trace-span-flags` header, all of it when it has another form."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) > 3 else traceparent


def _span_id_of(traceparent: str) -> str | None:
    parts = traceparent.split("-")
    return parts[2] if len(parts) > 3 else None


def _readable(value: Any) -> Any:
    try:
        return plain_value(value)
    except TypeError:
        return repr(value)
