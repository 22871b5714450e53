"""Every exception that a user can meet, and every error code on the wire.

One place for the engine, the SDK and the CLI, so that they use the same words. Imports nothing of the project.
"""

from __future__ import annotations

# Not from `typing`: loading it would cost the start of every worker 4 ms, for annotations alone.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["AlreadyRunning", "EngineNotRunning", "ErrorCode", "HttpError", "IIIError", "InvocationError"]
__all__ += [
    "LocalProtocolError",
    "ObserveRejection",
    "ProjectError",
    "ProtocolError",
    "RegistrationRejectedError",
    "RemoteProtocolError",
]


class ErrorCode:
    """The `code` of an error body. Those in upper case are spelled by the public wire contract."""

    INVALID_JSON = "invalid_json"
    INVALID_MESSAGE = "invalid_message"
    INVALID_PAYLOAD = "invalid_payload"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    FUNCTION_NOT_FOUND = "function_not_found"
    FUNCTION_NOT_INVOKABLE = "function_not_invokable"
    INVOCATION_FAILED = "invocation_failed"
    INVOCATION_STOPPED = "invocation_stopped"
    INVOCATION_ERROR = "invocation_error"
    INVALID_RESULT = "invalid_result"
    RESULT_NOT_SERIALIZABLE = "result_not_serializable"
    TIMEOUT = "TIMEOUT"
    SHUTDOWN = "SHUTDOWN"
    UNKNOWN = "UNKNOWN"
    WORKER_UNAVAILABLE = "worker_unavailable"
    OVERLOADED = "overloaded"
    ENGINE_STOPPING = "engine_stopping"
    LOOP_DETECTED = "loop_detected"
    DEADLOCK_DETECTED = "deadlock_detected"
    CANCELLED = "cancelled"
    NOT_CONNECTED = "not_connected"
    ACTION_NOT_FOUND = "action_not_found"
    ENQUEUE_ERROR = "enqueue_error"
    INVALID_NAMESPACE = "INVALID_NAMESPACE"
    NOT_FOUND = "NOT_FOUND"
    INVALID_ARGUMENTS = "INVALID_ARGUMENTS"
    FORBIDDEN = "FORBIDDEN"
    AUTH_ERROR = "AUTH_ERROR"
    LIMIT_EXCEEDED = "limit_exceeded"
    UNSAFE_PATTERN = "unsafe_pattern"
    INVALID_SCHEMA = "invalid_schema"
    DESERIALIZATION_ERROR = "deserialization_error"
    SERIALIZATION_ERROR = "serialization_error"
    TRIGGER_REGISTRATION_FAILED = "trigger_registration_failed"
    TRIGGER_TYPE_NOT_FOUND = "trigger_type_not_found"
    UNREGISTER_FAILED = "unregister_failed"
    OPS_DO_NOT_FIT = "OPS_DO_NOT_FIT"
    STORAGE_FULL = "storage_full"
    STORAGE_ERROR = "storage_error"
    FUNCTION_NAMESPACE_CONFLICT = "FUNCTION_NAMESPACE_CONFLICT"
    WORKER_NAMESPACE_CONFLICT = "WORKER_NAMESPACE_CONFLICT"


class IIIError(Exception):
    """Base of all exceptions that this project raises on purpose."""


class ProjectError(IIIError):
    """The project's own files are wrong (exit code 2).

    `line` and `column` count from 1; 0 means unknown. `hint` says in one sentence what to do. `others` are further
    mistakes that were found with this one.
    """

    others: tuple[ProjectError, ...] = ()

    def __init__(
        self, message: str, *, file: str = "", line: int = 0, column: int = 0, key: str = "", hint: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.hint = hint

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}; {self.hint}" if self.hint else text


class EngineNotRunning(IIIError):
    """No engine answers at the project's or the given address (exit code 3)."""


class AlreadyRunning(IIIError):
    """Another engine runs this project already (exit code 4)."""


class ProtocolError(IIIError):
    """A message breaks the protocol. `offset` is the byte of the line where it does, -1 if unknown."""

    def __init__(self, code: str, message: str, *, offset: int = -1, invocation_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.offset = offset
        self.invocation_id = invocation_id


class LocalProtocolError(ProtocolError):
    """This process was about to send what the protocol forbids: a bug of ours, or a value that JSON cannot hold."""


class RemoteProtocolError(ProtocolError):
    """A peer sent what the protocol forbids."""


class InvocationError(IIIError):
    """A call failed: the only exception that a caller of `trigger` gets for a remote failure.

    `code` is one of `ErrorCode` or the handler's own; `details` is a JSON object, e.g. `{"path", "expected", "got"}` of
    a refused payload or `{"reason", "stderr"}` of a dead worker. `function_id` and `invocation_id` are the failed
    call's, `stacktrace` is the handler's. `retryable` is True if the same call may succeed later.

    A handler raises it to fail with a code of its own:

        raise InvocationError("sold_out", "no rooms are left", details={"hotel": 7})
    """

    def __init__(
        self,
        code: str,
        message: str,
        function_id: str | None = None,
        stacktrace: str | None = None,
        invocation_id: str | None = None,
        *,
        details: dict[str, Any] | None = None,
        retryable: bool = False,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.function_id = function_id
        self.stacktrace = stacktrace
        self.invocation_id = invocation_id
        self.details = details or {}
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class HttpError(InvocationError):
    """What a function raises to answer a request with a status from 400 to 599: `HttpError(404, "no such order")`.

    `code` is the status's phrase (`not_found`) unless given; `headers` go with the answer. Callers that are no http
    client get it as an InvocationError, `details["http_status"]` is the status. ValueError for any other status.

        raise HttpError(409, "the order is paid already", details={"order": 7})
    """

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        code: str | None = None,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(f"the status of an error is a number from 400 to 599, not {status!r}")
        from http import HTTPStatus  # most functions do not fail

        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
        code = code or phrase.lower().replace(" ", "_").replace("-", "_").replace("'", "")
        marks: dict[str, Any] = {"http_status": status, **({"http_headers": headers} if headers else {})}
        super().__init__(code, message or phrase, details={**(details or {}), **marks})
        self.status = status


class ObserveRejection(IIIError):
    """An observer comes to nothing. `code` says why, in the engine's words or those of the function's worker."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class RegistrationRejectedError(IIIError):
    """The engine has refused this worker's name or function for good; every later call of the worker raises it.

    `owner_worker_id` is the worker that has the name.
    """

    def __init__(
        self, code: str, namespace: str, worker_name: str | None, owner_worker_id: str, message: str | None = None
    ) -> None:
        text = message or f"{worker_name or 'registration'} is taken in namespace {namespace}"
        super().__init__(f"{code}: {text}")
        self.code = code
        self.namespace = namespace
        self.worker_name = worker_name
        self.owner_worker_id = owner_worker_id
