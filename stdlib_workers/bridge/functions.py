"""The functions of the bridge: what is forwarded, what is exposed, and `bridge.invoke` for everything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from iii import InvocationError, TriggerAction
from stdlib_workers.bridge.options import DEFAULT_TIMEOUT_MS, Passage
from stdlib_workers.bridge.remote import BRIDGE_ERROR, Call, Caller, Remote
from stdlib_workers.values import Payload

Handler = Callable[[Any, Any], Awaitable[Any]]

INVOKE, INVOKE_ASYNC = "bridge.invoke", "bridge.invoke_async"
_MAX_TIMEOUT_MS = 86_400_000
REQUEST = {
    "type": "object",
    "properties": {
        "function_id": {"type": "string", "description": "A function of the other engine."},
        "data": {"description": "Its payload, any JSON value."},
        "timeout_ms": {"type": ["integer", "null"], "minimum": 1},
    },
    "required": ["function_id"],
}


def forwarding(passage: Passage, remote: Remote) -> Handler:
    """Return the handler of a function here that stands for one over there."""

    async def forward(payload: Any, metadata: Any = None) -> Any:
        return await remote.call(Call(passage.remote, payload, metadata, passage.timeout_ms))

    return forward


def exposing(passage: Passage, local: Caller) -> Handler:
    """Return the handler of a function over there that stands for one of this project."""

    async def expose(payload: Any, metadata: Any = None) -> Any:
        return await local.trigger_async(Call(passage.local, payload, metadata, passage.timeout_ms).request())

    return expose


async def invoke(remote: Remote, payload: Any) -> Any:
    """Call a function of the other engine by its id.

    Its result is the result; whatever goes wrong is a `bridge_error` (public contract) whose details hold the
    original `code` and `message`.
    """
    call = _call_from(INVOKE, payload)
    try:
        return await remote.call(call)
    except InvocationError as error:
        details = {"code": error.code, "message": error.message}
        raise InvocationError(BRIDGE_ERROR, f"{error.code}: {error.message}", details=details) from None


async def invoke_async(remote: Remote, payload: Any) -> None:
    """Have a function of the other engine run, and wait for nothing but the connection."""
    call = _call_from(INVOKE_ASYNC, payload)
    await remote.call(Call(call.function_id, call.payload, None, call.timeout_ms, TriggerAction.Void()))


def _call_from(function_id: str, payload: Any) -> Call:
    fields = Payload(function_id, payload)
    timeout = fields.integer("timeout_ms", DEFAULT_TIMEOUT_MS, 1, _MAX_TIMEOUT_MS)
    return Call(fields.string("function_id"), fields.get("data"), None, timeout or DEFAULT_TIMEOUT_MS)
