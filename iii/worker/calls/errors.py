"""Exceptions to error bodies and back.

`body_from_exception` makes what a caller learns of a handler that raised, `error_from_body` what `trigger` raises.
"""

from __future__ import annotations

import os

from iii.errors import ErrorCode, InvocationError
from iii.worker.codec.text import cut, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What `HttpError` adds to the details of an error.
_OF_HTTP = ("http_status", "http_headers")
# Frames of files below it are left out of the tracebacks that callers get.
SDK_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def body_from_exception(error: BaseException) -> dict[str, Any]:
    """Return the error body of a handler that raised `error`; an InvocationError keeps its code and details.

    Raises nothing, whatever the exception's own methods do. What JSON cannot hold is left to `Runner.answer_error`.
    """
    if not isinstance(error, InvocationError):
        class_name = type(error).__name__
        failure = {"code": ErrorCode.INVOCATION_FAILED, "message": text_of(error) or class_name}
        return {**failure, "stacktrace": _traceback_of(error), "details": {"exception": class_name}}
    body: dict[str, Any] = {"code": text_of(error.code), "message": text_of(error.message)}
    if error.stacktrace:
        body["stacktrace"] = text_of(error.stacktrace)
    elif error.invocation_id is not None:
        # A call that the handler made failed. Without the trace the engine would seem to have refused this call.
        body["stacktrace"] = _traceback_of(error)
    if error.details:
        body["details"] = error.details
        if error.invocation_id is not None:
            # The status that another function wanted for its own request says nothing of this one.
            body["details"] = {key: value for key, value in error.details.items() if key not in _OF_HTTP}
    if error.retryable:
        body["retryable"] = True
    return body


def error_from_body(body: Any, function_id: str | None, invocation_id: str | None) -> InvocationError:
    """Return the exception for an error body; what is missing in it, or is no object, becomes code `UNKNOWN`."""
    if not isinstance(body, dict):
        return InvocationError(ErrorCode.UNKNOWN, str(body), function_id, None, invocation_id)
    details = body.get("details")
    return InvocationError(
        str(body.get("code") or ErrorCode.UNKNOWN),
        str(body.get("message") or "the call failed without a message"),
        function_id,
        body.get("stacktrace"),
        invocation_id,
        details=details if isinstance(details, dict) else None,
        retryable=bool(body.get("retryable")),
    )


def _traceback_of(error: BaseException) -> str:
    """Format a traceback from the first frame outside the SDK on."""
    import traceback  # only failures need it

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(SDK_FOLDER):
        trace = trace.tb_next
    try:
        return cut("".join(traceback.format_exception(type(error), error, trace)))
    except BaseException:  # noqa: BLE001 - the boundary to the attributes of a user's exception
        # Its frames at least, which are the interpreter's.
        return cut("".join(traceback.format_tb(trace))) + text_of(error)
