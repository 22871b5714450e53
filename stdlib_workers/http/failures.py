"""What a client is told when a request fails: one status and one envelope for each way to fail. Pure."""

from __future__ import annotations

from typing import Any

from iii import InvocationError
from stdlib_workers.http.replies import Headers, Reply, json_reply

# What the engine says of a call that it could not bring to an end. Anything else is the function's own and a 500.
STATUS_OF = {
    "invalid_payload": 400,
    "payload_too_large": 413,
    "TIMEOUT": 504,
    "overloaded": 503,
    "worker_unavailable": 503,
    "invocation_stopped": 503,
    "engine_stopping": 503,
    "SHUTDOWN": 503,
}
RETRY_AFTER_SECONDS = 1


class Refusal(Exception):
    """A request that gets no function's answer. `message` is shown to the client."""

    def __init__(self, status: int, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details: dict[str, Any] = fields.pop("details", None) or {}
        self.headers: Headers = fields.pop("headers", None) or []
        self.extra: dict[str, Any] = fields


def refusal_from(error: InvocationError, *, timeout_code: str = "TIMEOUT") -> Refusal:
    """Return what a failed call means for the client; never with a traceback.

    An error with a trace is one that a handler raised, or let through from a call of its own: the function failed,
    whatever the code says of somebody else.
    """
    status = 500 if error.stacktrace else STATUS_OF.get(error.code, 500)
    code = timeout_code if status == 504 else error.code
    details = dict(error.details) if status == 400 else {}
    if status >= 500 and error.invocation_id:
        details["call_id"] = error.invocation_id
    headers: Headers = [(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)] if status == 503 else []
    return Refusal(status, code, error.message, details=details, headers=headers)


def reply_to(refusal: Refusal, request_id: str) -> Reply:
    """Return the envelope; one of the server's own failures names the request, as the log does."""
    error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
    if refusal.details:
        error["details"] = refusal.details
    if refusal.status >= 500:
        error["error_id"] = request_id
    return json_reply(refusal.status, {"error": error, **refusal.extra}, *refusal.headers)
