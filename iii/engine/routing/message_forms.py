"""The forms that a call and its result take between caller and callee. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from iii.engine.routing import error_bodies
from iii.engine.routing.causes import Causes, with_causes, without_causes
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Peer
from iii.engine.tracing.trace_context import baggage_for
from iii.errors import ErrorCode, ProtocolError
from iii.protocol.codec import decode, decode_value, encode, encode_error, encode_value
from iii.protocol.messages import (
    ABSENT,
    DEFAULT_NAMESPACE,
    CallerField,
    ErrorBody,
    InvocationResult,
    InvokeFunction,
    Message,
    is_empty,
    or_null,
)


def parent_id(field: Raw) -> str | None:
    """Return the id of the running invocation that a `caller` field names; None when it names none."""
    try:
        return decode_value(field, type=CallerField).invocation_id
    except ValueError:
        return None


# The fields that name things, and the characters a name may have: names are shown in terminals, URLs and logs.
_NAME_FIELDS = ("id", "function_id", "trigger_type", "namespace", "trigger_namespace", "invocation_id")
MAX_NAME = 256
# The field of a payload that names the caller (public contract), and the beginning of reserved metadata.
CALLER, RESERVED_METADATA = "_caller_worker_id", "iii."


def malformed_name(message: Message) -> str | None:
    """Return what is wrong with the names in a message: too long, or with control characters; None if nothing is."""
    for field in _NAME_FIELDS:
        name = getattr(message, field, None)
        if name is None:
            continue
        if len(name) > MAX_NAME:
            return f"{field} has {len(name)} characters; a name has at most {MAX_NAME}"
        if not name.isprintable():
            return f"{field} holds control characters: {name!r}"
    return None


def name_session(
    call: InvokeFunction, caller_id: str | None, *, in_flight: Mapping[str, Invocation], peer: Peer
) -> None:
    """Make a call of a session say what the engine knows, in place of what the session wrote about itself.

    Its worker id is in the payload as `_caller_worker_id` (with None, no id is), reserved metadata (`iii.*`) goes, and
    `caller` stays only if it names a call that this session is running.
    """
    call.data = _with_caller(call.data, caller_id)
    call.metadata = without_reserved(call.metadata)
    if call.caller is not ABSENT:
        running = in_flight.get(parent_id(call.caller) or "")
        if running is None or running.callee is not peer:
            call.caller = ABSENT
        else:
            call.caller = Raw(encode_value(CallerField(running.id, running.function.id)))


def _with_caller(data: Raw, caller_id: str | None) -> Raw:
    """Return a payload with the caller's id, or without any for None; one that is no object stays."""
    payload = _raw_object(data)
    if payload is None:
        return data
    payload.pop(CALLER, None)
    for key in ("data", "payload"):  # of a job or a message to be: its receiver may not take it for the engine's
        inner = _raw_object(payload.get(key, ABSENT))
        if inner is not None and inner.pop(CALLER, None) is not None:
            payload[key] = Raw(encode_value(inner))
    if "metadata" in payload:
        payload["metadata"] = without_reserved(payload["metadata"])
    if caller_id is not None:
        payload[CALLER] = Raw(encode_value(caller_id))
    return Raw(encode_value(payload))


def without_reserved(metadata: Raw) -> Raw:
    """Return metadata without the keys that only the engine and its workers write (`iii.*`)."""
    fields = _raw_object(metadata)
    if fields is None or not any(key.startswith(RESERVED_METADATA) for key in fields):
        return metadata
    return Raw(encode_value({key: value for key, value in fields.items() if not key.startswith(RESERVED_METADATA)}))


def _raw_object(data: Raw) -> dict[str, Raw] | None:
    if bytes(data)[:1] != b"{":
        return None
    try:
        return decode_value(data, type=dict[str, Raw])
    except ValueError:
        return None  # the callee refuses it


def callee_line(message: InvokeFunction, causes: Causes | None = None) -> bytes:
    """Return the line that the callee gets of a call: always with an id and data, never a namespace or an action.

    With `causes`, its baggage says what led to whatever the callee does.
    """
    data, baggage = or_null(message.data), _baggage_of(message)
    if causes is not None:
        baggage = with_causes(baggage, causes)
    return encode(replace(message, data=data, baggage=baggage, namespace=None, action=ABSENT, idempotent=None))


# What a call with an action says in these fields, or does not say, no option of the action can say.
CALL_FIELDS = frozenset(
    {"baggage", "data", "function_id", "messageReceiptId", "metadata", "namespace", "traceparent", "type"}
)


def action_payload(message: InvokeFunction, receipt: str, causes: Causes | None) -> dict[str, Any]:
    """Return what the function that carries out an action gets: the call, and the id of the job to be.

    `causes` go along with the job, in its baggage.
    """
    baggage = _baggage_of(message)
    payload: dict[str, Any] = {
        "function_id": message.function_id,
        "data": or_null(message.data),
        "messageReceiptId": receipt,
        "traceparent": message.traceparent,
        "baggage": baggage if causes is None else with_causes(baggage, causes),
    }
    if message.namespace not in (None, DEFAULT_NAMESPACE):
        payload["namespace"] = message.namespace
    return payload


def _baggage_of(message: InvokeFunction) -> str | None:
    """Name the called function in the baggage of a call that has a trace at all (public contract)."""
    baggage = without_causes(message.baggage)
    has_trace = message.traceparent is not None or baggage is not None
    return baggage_for(message.function_id, baggage) if has_trace else None


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


def checked_result(invocation: Invocation, message: InvocationResult, line: bytes) -> tuple[InvocationResult, bytes]:
    """Return a result and its line; one that the function's response format does not admit as an error."""
    validator = invocation.function.result_validator
    mismatch = None if validator is None or message.error is not ABSENT else validator(message.result)
    # A function that has streamed ends without a result: its items were that.
    if mismatch is None or not (message.result or not (invocation.line and decode(invocation.line).stream)):
        return message, line
    error = error_bodies.invalid_result(invocation.function, mismatch)
    message = InvocationResult(invocation.id, invocation.function.id, error=encode_error(error))
    return message, encode(message)


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
    # A queue may use the contract's code itself.
    text = body.message if body.code == ErrorCode.ENQUEUE_ERROR else f"{body.code}: {body.message}"
    return ErrorBody(ErrorCode.ENQUEUE_ERROR, text, details=body.details)


def is_cancelled(error: Raw) -> bool:
    """Whether a callee's error says that its handler has been cancelled."""
    try:
        return decode_value(error, type=ErrorBody).code == ErrorCode.CANCELLED
    except ValueError:
        return False


def job_in(line: bytes) -> str | None:
    """Return the id of the job that the line of a call is an attempt of; None for any other call."""
    try:
        job = decode_value(decode(line).metadata)["iii.job"]["id"]
    except (ProtocolError, ValueError, LookupError, TypeError):
        return None
    return job if isinstance(job, str) else None
