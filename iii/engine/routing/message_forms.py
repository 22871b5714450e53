"""The forms a call's fields and its answer take between its two ends. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from iii.engine.routing.invocation import Invocation
from iii.errors import ErrorCode
from iii.protocol.codec import decode_value, encode, encode_error, encode_value
from iii.protocol.messages import CallerField, ErrorBody, InvocationResult, InvokeFunction, is_empty


def parent_id(field: Raw) -> str | None:
    """Return the id of the running invocation that a `caller` field names; None when it names none."""
    try:
        return decode_value(field, type=CallerField).invocation_id
    except ValueError:
        return None


def handed_on(message: InvokeFunction, target: str, payload: Mapping[str, Any]) -> InvokeFunction:
    """Return a call as the function gets it that sees to it in place of the one called."""
    return InvokeFunction(
        target,
        invocation_id=message.invocation_id,
        data=Raw(encode_value(payload)),
        traceparent=message.traceparent,
        baggage=message.baggage,
        caller=message.caller,
        deadline_ms=message.deadline_ms,
    )


def caller_form(invocation: Invocation, message: InvocationResult) -> bytes:
    """Return the result as the caller gets it: a receipt for an enqueued call, and never the worker's own trace."""
    if invocation.receipt is not None:
        return encode(_receipt(invocation, message))
    return encode(InvocationResult(message.invocation_id, message.function_id, message.result, message.error))


def _receipt(invocation: Invocation, message: InvocationResult) -> InvocationResult:
    """What the enqueue action answers: its receipt, or the provider's error under the contract's one code."""
    if is_empty(message.error):
        receipt = encode_value({"messageReceiptId": invocation.receipt})
        return InvocationResult(message.invocation_id, message.function_id, Raw(receipt))
    error = encode_error(_enqueue_error(message.error))
    return InvocationResult(message.invocation_id, message.function_id, error=error)


def _enqueue_error(error: Raw) -> ErrorBody:
    try:
        body = decode_value(error, type=ErrorBody)
    except ValueError:
        # The provider may put anything there; the caller still gets its one outcome.
        return ErrorBody(ErrorCode.ENQUEUE_ERROR, bytes(error).decode("utf-8", "replace"))
    return ErrorBody(ErrorCode.ENQUEUE_ERROR, f"{body.code}: {body.message}", details=body.details)
