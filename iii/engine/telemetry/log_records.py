"""Log records for telemetry (docs/observability.md), made from the engine's reports. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from msgspec import DecodeError, Struct

from iii.engine.security.sanitize import sanitize
from iii.engine.supervision import reports
from iii.engine.supervision.reports import LogLine, Notice, Report
from iii.engine.telemetry.span_records import SERVICE, nanoseconds
from iii.protocol.codec import decode_value

# Characters of a record's body, and of the name of its service.
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
    resource: dict[str, Any] = {}
    instrumentation_scope_name: str | None = "iii"
    instrumentation_scope_version: str | None = None


class LoggerRecord(Struct):
    """A JSON line of the SDK's `Logger`."""

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
    """Return the record of a report made at `now` (seconds since 1970); None for a report that is not logged."""
    if isinstance(report, LogLine):
        return _record_of_line(report)
    level_and_body = _RECORDED.get(type(report))
    if level_and_body is None:
        return None
    level, body = level_and_body(report)
    run = getattr(report, "run", None)
    attributes: dict[str, Any] = {"iii.report": type(report).__name__}
    attributes |= _attributes_of_run(run) if run is not None else {}
    if isinstance(report, Notice) and report.worker:
        attributes["iii.worker"] = report.worker
    return _record(now, now, level, body, SERVICE, attributes)


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


def _attributes_of_run(run: Any) -> dict[str, Any]:
    return {"iii.worker": run.worker, "iii.worker.instance": run.instance, "iii.worker.generation": run.generation}


def _record_of_line(line: LogLine) -> LogRecord:
    """Return the record of a line that a worker wrote: a JSON line of `Logger`, or plain text."""
    attributes = {"iii.stream": line.stream, **_attributes_of_run(line.run)}
    if line.causes:
        attributes["iii.causes"] = line.causes
    logged: LoggerRecord | None = None
    if line.text.startswith('{"time":'):
        with contextlib.suppress(DecodeError, RecursionError):
            logged = decode_value(line.text, type=LoggerRecord)
    if logged is None:
        return _record(line.time, line.time, "info", line.text, line.run.worker, attributes)
    if isinstance(logged.data, dict) and logged.data:
        attributes |= logged.data
    elif logged.data is not None:
        attributes["data"] = logged.data
    if logged.function_id:
        attributes["iii.function.id"] = logged.function_id
    if logged.invocation_id:
        attributes["iii.invocation.id"] = logged.invocation_id
    level = _LEVELS.get(logged.level, "info")
    # The worker has the clock of this machine: a time that differs by more than a day was not read from it.
    time = logged.time if abs(logged.time - line.time) < 86_400 else line.time
    record = _record(time, line.time, level, logged.message, logged.service or line.run.worker, attributes)
    record.trace_id, record.span_id = _id_of(logged.trace_id, 32), _id_of(logged.span_id, 16)
    return record


def _id_of(id: str | None, length: int) -> str | None:
    return id if id and len(id) == length and id.strip("0") else None


def _body_of_exit(report: Any) -> str:
    return f"{report.run.worker}: {report.reason.words}"


# Level and body for each type of report that is logged. The others only say that all is well.
_RECORDED: dict[type, Callable[[Any], tuple[str, str]]] = {
    reports.Became: lambda r: ("info", f"{r.run.worker} is ready after {r.seconds:.3f} s"),
    reports.Reloaded: lambda r: ("info", f"{r.run.worker} reloaded in {r.seconds:.3f} s"),
    reports.ReloadFailed: lambda r: ("error", f"{_body_of_exit(r)}; the version before serves on"),
    reports.Exited: lambda r: ("warn", f"{_body_of_exit(r)}, restart {r.count} in {r.delay:.1f} s"),
    reports.Failed: lambda r: ("error", f"{_body_of_exit(r)}; it is not started again"),
    reports.Finished: lambda r: ("info", _body_of_exit(r)),
    reports.Holding: lambda r: ("info", f"{r.run.worker}: waiting at most {r.seconds:.1f} s for {r.calls} calls"),
    reports.LeftBehind: lambda r: ("warn", f"{r.run.worker} left processes behind: {', '.join(map(str, r.pids))}"),
    Notice: lambda r: (_LEVELS.get(r.level, "info"), " ".join((r.text, *r.details))),
}
