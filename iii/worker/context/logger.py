"""`Logger`: JSON lines on stderr, which the engine shows and keeps as the worker's log."""

from __future__ import annotations

import json
import sys
from time import time

from iii.worker.codec.stdlib_json import plain_value
from iii.worker.codec.text import text_of
from iii.worker.context.invocation import CURRENT
from iii.worker.context.tracing import current_trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


class Logger:
    """Log messages with `data` (any JSON value; what is none is written as its `repr`) beside them.

    Each record has `time` (seconds since 1970), `level` and `message`, and names the running invocation and its trace;
    `trace_id` and `span_id` given here replace the trace's. Records go to `stream`, by default stderr.

        Logger().info("order placed", {"order": 7})
    """

    def __init__(
        self,
        trace_id: str | None = None,
        service_name: str = "",
        span_id: str | None = None,
        stream: TextIO | None = None,
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
        """Log something that should not happen, but harms nothing yet."""
        self._emit("warn", message, data)

    def error(self, message: str, data: Any = None) -> None:
        """Log a failure."""
        self._emit("error", message, data)

    def _emit(self, level: str, message: str, data: Any) -> None:
        record: dict[str, Any] = {"time": time(), "level": level, "message": text_of(message)}
        record.update({key: value for key, value in self._fields.items() if value})
        invocation = CURRENT.get()
        if invocation is not None:
            record |= {"function_id": invocation.function_id, "invocation_id": invocation.invocation_id}
        traceparent = current_trace().get("traceparent")
        if traceparent:
            # `version-trace-span-flags`; one of another form is a trace id as it is.
            parts = traceparent.split("-")
            trace_id, span_id = parts[1:3] if len(parts) > 3 else (traceparent, None)
            if record.setdefault("trace_id", trace_id) == trace_id:
                record.setdefault("span_id", span_id)
        if data is not None:
            record["data"] = data
        # One write: lines of several threads must not mix.
        stream = self._stream or sys.stderr
        try:
            line = json.dumps(record, default=_readable)
        except (TypeError, ValueError, RecursionError):
            # Keys that JSON cannot hold, a circle: a record with its data as text is better than none.
            line = json.dumps(record | {"data": _text_of_data(data)}, default=_readable)
        stream.write(f"{line}\n")
        stream.flush()


def _readable(value: Any) -> Any:
    try:
        return plain_value(value)
    except Exception:  # noqa: BLE001 - the boundary to a value's own methods: a log call must not fail for its data
        return _text_of_data(value)


def _text_of_data(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - as above
        return f"<{type(value).__name__} whose repr raises>"
