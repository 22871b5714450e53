"""The forms that a call and its result take between caller and callee. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from iii.engine.routing.invocation import Invocation
from iii.engine.tracing.trace_context import baggage_for
from iii.errors import ErrorCode
from iii.protocol.codec import decode_value, encode, encode_error, encode_value
from iii.protocol.messages import (
    ABSENT,
    DEFAULT_NAMESPACE,
    CallerField,
    ErrorBody,
    InvocationResult,
    InvokeFunction,
    is_empty,
    or_null,
)


def parent_id(field: Raw) -> str | None:
    """Return the id of the running invocation that a `caller` field names; None when it names none."""
    try:
        return decode_value(field, type=CallerField).invocation_id
    except ValueError:
        return None


def callee_line(message: InvokeFunction) -> bytes:
    """Return the line that the callee gets of a call: always with an id and data, never a namespace or an action."""
    data, baggage = or_null(message.data), _baggage_of(message)
    return encode(replace(message, data=data, baggage=baggage, namespace=None, action=ABSENT, idempotent=None))


def action_payload(message: InvokeFunction, receipt: str) -> dict[str, Any]:
    """Return what the function that carries out an action gets: the call, and the id of the job to be."""
    payload: dict[str, Any] = {
        "function_id": message.function_id,
        "data": or_null(message.data),
        "messageReceiptId": receipt,
        "traceparent": message.traceparent,
        "baggage": _baggage_of(message),
    }
    if message.namespace not in (None, DEFAULT_NAMESPACE):
        payload["namespace"] = message.namespace
    return payload


def _baggage_of(message: InvokeFunction) -> str | None:
    """Name the called function in the baggage of a call that has a trace at all (public contract)."""
    has_trace = message.traceparent is not None or message.baggage is not None
    return baggage_for(message.function_id, message.baggage) if has_trace else None


def redirected(message: InvokeFunction, function_id: str, payload: Mapping[str, Any]) -> InvokeFunction:
    """Return the call of another function, with this payload, that takes the place of a call."""
    return InvokeFunction(
        function_id,
        invocation_id=message.invocation_id,
        data=Raw(encode_value(payload)),
        traceparent=message.traceparent,
        baggage=message.baggage,
        caller=message.caller,
        deadline_ms=message.deadline_ms,
    )


def result_for_caller(invocation: Invocation, message: InvocationResult) -> bytes:
    """Return the line of a result for the caller: of an enqueued call its receipt, and never the callee's trace.

    The error of an enqueued call has the contract's one code, `enqueue_error`, whatever the queue's error was.
    """
    if invocation.receipt is None:
        result, error = message.result, message.error
    elif is_empty(message.error):
        result, error = Raw(encode_value({"messageReceiptId": invocation.receipt})), ABSENT
    else:
        result, error = ABSENT, encode_error(_enqueue_error(message.error))
    return encode(InvocationResult(message.invocation_id, message.function_id, result, error))


def _enqueue_error(error: Raw) -> ErrorBody:
    try:
        body = decode_value(error, type=ErrorBody)
    except ValueError:
        # The provider may put anything there; the caller still gets its one outcome.
        return ErrorBody(ErrorCode.ENQUEUE_ERROR, bytes(error).decode("utf-8", "replace"))
    return ErrorBody(ErrorCode.ENQUEUE_ERROR, f"{body.code}: {body.message}", details=body.details)
