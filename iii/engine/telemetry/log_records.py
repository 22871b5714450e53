"""How a report of the engine looks as a log record (docs/observability.md). Pure; called by `feed.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import DecodeError, Struct, field

from iii.engine.security.sanitize import sanitize
from iii.engine.supervision.reports import (
    Became,
    Exited,
    Failed,
    Finished,
    Holding,
    LeftBehind,
    LogLine,
    Notice,
    Reloaded,
    ReloadFailed,
    Report,
)
from iii.engine.telemetry.span_records import SERVICE, nanoseconds
from iii.protocol.codec import decode_value

# Characters of a body, and of the data beside it as JSON.
MAX_BODY = 32 * 1024
MAX_NAME = 256

SEVERITIES = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
_LEVELS = {"warning": "warn"} | {name: name for name in SEVERITIES}


class LogRecord(Struct, gc=False):
    """A log record as JSON."""

    timestamp_unix_nano: int
    observed_timestamp_unix_nano: int
    severity_number: int
    severity_text: str
    body: str
    service_name: str
    attributes: dict[str, Any]
    trace_id: str | None = None
    span_id: str | None = None
    resource: dict[str, Any] = field(default_factory=dict)
    instrumentation_scope_name: str | None = "iii"
    instrumentation_scope_version: str | None = None


class LoggerRecord(Struct):
    """What `Logger` of the SDK writes as one JSON line."""

    time: float
    level: str
    message: str
    service: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    function_id: str | None = None
    invocation_id: str | None = None
    data: Any = None


def log_record(report: Report, now: float) -> LogRecord | None:
    """Return the record of a report that came at `now` (seconds since 1970); None for what is no news."""
    if isinstance(report, LogLine):
        return _line(report)
    told = _WORDS.get(type(report))
    if told is None:
        return None
    level, words = told(report)
    run = getattr(report, "run", None)
    attributes: dict[str, Any] = {"iii.report": type(report).__name__}
    attributes |= _of_run(run) if run is not None else {}
    if isinstance(report, Notice) and report.worker:
        attributes["iii.worker"] = report.worker
    return _record(now, now, level, words, SERVICE, attributes)


def _record(time: float, observed: float, level: str, body: str, service: str, attributes: dict[str, Any]) -> LogRecord:
    return LogRecord(
        nanoseconds(time),
        nanoseconds(observed),
        SEVERITIES[level],
        level.upper(),
        sanitize(body)[:MAX_BODY],
        service[:MAX_NAME],
        attributes,
        resource={"service.name": service[:MAX_NAME]},
    )


def _of_run(run: Any) -> dict[str, Any]:
    return {"iii.worker": run.worker, "iii.worker.instance": run.instance, "iii.worker.generation": run.generation}


def _line(line: LogLine) -> LogRecord:
    """A line that a worker wrote: a record of `Logger`, or words."""
    attributes = {"iii.stream": line.stream, **_of_run(line.run)}
    said = _logger_record(line.text)
    if said is None:
        return _record(line.time, line.time, "info", line.text, line.run.worker, attributes)
    attributes |= _attributes_of(said)
    level = _LEVELS.get(said.level, "info")
    # The clock of the worker is this machine's: what differs by more than a day was not measured.
    time = said.time if abs(said.time - line.time) < 86_400 else line.time
    form = _record(time, line.time, level, said.message, said.service or line.run.worker, attributes)
    form.trace_id, form.span_id = _id_of(said.trace_id, 32), _id_of(said.span_id, 16)
    return form


def _logger_record(text: str) -> LoggerRecord | None:
    if not text.startswith('{"time":'):
        return None
    try:
        return decode_value(text, type=LoggerRecord)
    except (DecodeError, RecursionError):
        return None


def _attributes_of(said: LoggerRecord) -> dict[str, Any]:
    found: dict[str, Any] = dict(said.data) if isinstance(said.data, dict) else {}
    if said.data is not None and not found:
        found["data"] = said.data
    if said.function_id:
        found["iii.function.id"] = said.function_id
    if said.invocation_id:
        found["iii.invocation.id"] = said.invocation_id
    return found


def _id_of(id: str | None, length: int) -> str | None:
    return id if id and len(id) == length and id.strip("0") else None


def _words_of_exit(report: Any) -> str:
    return f"{report.run.worker}: {report.reason.words}"


# Level and words of each kind of report. Those that only say that all is well are no log records.
_WORDS: dict[type, Callable[[Any], tuple[str, str]]] = {
    Became: lambda r: ("info", f"{r.run.worker} is ready after {r.seconds:.3f} s"),
    Reloaded: lambda r: ("info", f"{r.run.worker} reloaded in {r.seconds:.3f} s"),
    ReloadFailed: lambda r: ("error", f"{_words_of_exit(r)}; the version before serves on"),
    Exited: lambda r: ("warn", f"{_words_of_exit(r)}, restart {r.count} in {r.delay:.1f} s"),
    Failed: lambda r: ("error", f"{_words_of_exit(r)}; it is not started again"),
    Finished: lambda r: ("info", _words_of_exit(r)),
    Holding: lambda r: ("info", f"{r.run.worker}: waiting at most {r.seconds:.1f} s for {r.calls} calls"),
    LeftBehind: lambda r: ("warn", f"{r.run.worker} left processes behind: {', '.join(map(str, r.pids))}"),
    Notice: lambda r: (_LEVELS.get(r.level, "info"), " ".join((r.text, *r.details))),
}
