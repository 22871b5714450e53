"""Calls that failed without anybody waiting for them, one report each: what failed, where, and what had made the call.

The router reports every failed call that nobody waits for, and those of peers that fire triggers. Whether the latter
were made for an event is decided here: by the job in the call's metadata, or by the binding that the call fits. Pure
but for the clock, which is handed in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from msgspec import Raw, Struct

from iii.engine.routing.bindings import Binding
from iii.engine.routing.events import CallFailed
from iii.engine.routing.peer import Peer
from iii.engine.supervision import reports
from iii.engine.supervision.run import Frame, Run, SourceError
from iii.engine.supervision.stack_traces import parse_traceback
from iii.errors import ErrorCode, ProtocolError
from iii.failure_text import unnamed
from iii.protocol.codec import decode, decode_value
from iii.protocol.messages import ABSENT, CallerField, ErrorBody, InvokeFunction, is_empty

# What a client of the http worker did wrong, and is told with a status below 500.
_CLIENT_ERRORS = (ErrorCode.INVALID_PAYLOAD, ErrorCode.PAYLOAD_TOO_LARGE)
# The field of a binding's config that names a second function, which is called before.
_CONDITION = "condition_function_id"
# Standard workers that call functions of the project without a binding: middleware, guards, alerts.
_CALLING = ("http", "stream", "observability")
MAX_CONFIG = 80  # characters shown of a binding's config
MAX_TEXT = 8 * 1024  # characters of an error's message
MAX_STACK = 32 * 1024  # characters of a stack trace that are looked at
MAX_KNOWN = 128  # errors whose stack traces have been read
# Stack traces that are read a second: one takes 0.1 ms, which a flood of failures must not cost each time.
MAX_READ = 100


class _Cause(Struct, frozen=True):
    """What a call was made for. `is_final`: it is not tried again."""

    kind: str
    words: str
    is_final: bool = False


class FailedCalls:
    """Makes the reports. `standard_of(worker)`: the standard worker that a worker of the project is.

    `redact` takes secrets out of a text; `clock()` is monotonic seconds.
    """

    def __init__(
        self,
        bindings: Iterable[Binding],
        *,
        standard_of: Callable[[str], str | None],
        redact: Callable[[str], str],
        clock: Callable[[], float],
    ) -> None:
        self._bindings = bindings
        self._standard_of = standard_of
        self._redact = redact
        self._clock = clock
        self._known: OrderedDict[tuple[str, bytes], SourceError] = OrderedDict()
        self._window = 0.0
        self._read = 0

    def report_of(self, event: CallFailed, root: Path) -> reports.CallFailed | None:
        """Return the report of a call that failed; None if its caller waits for the outcome on its own account."""
        body = event.error if isinstance(event.error, ErrorBody) else _body_in(event.error)
        if body is None:
            return None
        call = _call_in(event.line)
        cause = _cause_of_void(event, call) if event.is_void else self._cause(event, call, body)
        if cause is None:
            return None
        error = self._error(event, body, root)
        words = self._redact(cause.words)
        run = _run_of(event.callee)
        return reports.CallFailed(run, event.function_id, cause.kind, words, error, _trace_id(call), cause.is_final)

    def _cause(self, event: CallFailed, call: InvokeFunction | None, body: ErrorBody) -> _Cause | None:
        if event.origin.kind == "engine":
            # The engine's hooks refuse by errors of their own: only a handler that broke has failed.
            return _Cause("hook", "hook of the engine") if body.stacktrace else None
        metadata = None if call is None or is_empty(call.metadata) else decode_value(call.metadata)
        if isinstance(metadata, dict) and isinstance(job := metadata.get("iii.job"), dict):
            return _cause_of_job(job, is_done=bool(body.details and body.details.get("returned") is True))
        cause = self._cause_by_binding(event)
        if cause is None:
            standard = self._standard_of(event.origin.owner.name)
            return _Cause(standard, f"{standard} worker") if standard in _CALLING and body.stacktrace else None
        return None if cause.kind == "http" and _is_clients(body) else cause

    def _cause_by_binding(self, event: CallFailed) -> _Cause | None:
        own = [binding for binding in self._bindings if binding.provider is event.origin]
        for binding in own:
            if binding.function_id == event.function_id and binding.namespace == event.namespace:
                return _Cause(binding.trigger_type, f"{binding.trigger_type} trigger{_words_of(binding)}")
        id = event.function_id.encode()
        for binding in own:
            if id in bytes(binding.config) and _CONDITION.encode() in bytes(binding.config):
                words = f"condition of {binding.trigger_type} trigger{_words_of(binding)}"
                return _Cause(binding.trigger_type, words)
        return None

    def _error(self, event: CallFailed, body: ErrorBody, root: Path) -> SourceError:
        """Return the error with the lines of the project in its stack trace."""
        key = (event.function_id, b"" if isinstance(event.error, ErrorBody) else bytes(event.error))
        if key[1] and (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
            return known
        exception = body.details.get("exception") if body.details else None
        name = exception if isinstance(exception, str) else body.code
        message = unnamed(event.function_id, body.message)
        text = self._redact((f"{name}: {message}" if message != name else name)[:MAX_TEXT])
        error = SourceError("", 0, text)
        if body.stacktrace and self._may_read():
            found = parse_traceback(body.stacktrace[-MAX_STACK:].split("\n"), root)
            if found is not None:
                error = self._without_secrets(found, text)
            self._known[key] = error
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return error

    def _may_read(self) -> bool:
        now = self._clock()
        if now - self._window >= 1.0:
            self._window, self._read = now, 0
        self._read += 1
        return self._read <= MAX_READ

    def _without_secrets(self, found: SourceError, text: str) -> SourceError:
        redact = self._redact
        frames = tuple(Frame(each.file, each.line, each.function, redact(each.source)) for each in found.frames)
        return SourceError(found.file, found.line, text, redact(found.source), frames, tuple(map(redact, found.causes)))


def _is_clients(body: ErrorBody) -> bool:
    """Whether the client of a request is told what it did wrong: by the engine, or by a status that the handler chose.

    A stack trace stands for a failure of the handler, also where it let another function's error through.
    """
    status = (body.details or {}).get("http_status")
    is_status = isinstance(status, int) and 400 <= status < 500
    return not body.stacktrace and (is_status or body.code in _CLIENT_ERRORS)


def _body_in(error: Raw) -> ErrorBody | None:
    if is_empty(error):
        return None
    try:
        return decode_value(error, type=ErrorBody)
    except ValueError:
        return ErrorBody(ErrorCode.UNKNOWN, "the worker's error has no code and message")


def _call_in(line: bytes) -> InvokeFunction | None:
    try:
        message = decode(line)
    except ProtocolError:  # the line of a trusted worker is decoded here for the first time
        return None
    return message if isinstance(message, InvokeFunction) else None


def _cause_of_void(event: CallFailed, call: InvokeFunction | None) -> _Cause:
    caller = None
    if call is not None and call.caller is not ABSENT:
        try:
            caller = decode_value(call.caller, type=CallerField).function_id
        except ValueError:
            caller = None
    whose = event.origin.name or event.origin.id
    if event.origin.kind == "client" and whose == "local":  # the command line, or another program on the socket
        whose = "a local program"
    return _Cause("void", f"void call of {caller} ({whose})" if caller else f"void call of {whose}")


def _cause_of_job(job: dict[str, Any], *, is_done: bool) -> _Cause:
    if is_done:  # its handler has returned, and nobody would have had what it returned
        return _Cause(
            "job", f"job {job.get('id')} of queue {job.get('queue')}, done: it is not run again", is_final=True
        )
    attempt, most, delay, failures = (job.get(key) for key in ("attempt", "max_attempts", "retry_in_ms", "failures"))
    words = f"job {job.get('id')} of queue {job.get('queue')}, attempt {attempt} of {most}"
    if isinstance(failures, int) and isinstance(most, int) and failures + 1 >= most:
        return _Cause("job", f"{words}, now a dead letter", is_final=True)
    return _Cause("job", f"{words}, next in {delay / 1000:g} s" if isinstance(delay, int) else words)


def _words_of(binding: Binding) -> str:
    """Return what a binding is bound to: ` (scope users, key ada)`."""
    config = None if is_empty(binding.config) else decode_value(binding.config)
    if not isinstance(config, dict):
        return ""
    shown = {name: value for name, value in config.items() if isinstance(value, str | int) and value}
    shown.pop("payload", None)  # not where the event comes from, but what becomes of it
    words = ", ".join(f"{name} {value}" for name, value in shown.items())
    if not words:
        return ""
    return f" ({words if len(words) <= MAX_CONFIG else words[: MAX_CONFIG - 3] + '...'})"


def _run_of(callee: Peer | None) -> Run:
    """Return the process that ran the call; one that the engine did not start has no log of its own."""
    if callee is None or not callee.owner.is_supervised:
        return Run("iii", 0, 0)
    return Run(callee.owner.name, callee.instance or 0, callee.generation or 0)


def _trace_id(call: InvokeFunction | None) -> str:
    parts = (call.traceparent or "").split("-") if call is not None else []
    return parts[1] if len(parts) > 2 else ""
