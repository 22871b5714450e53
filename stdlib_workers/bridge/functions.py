"""Handlers of the bridge: forwarded functions, exposed functions, and `bridge.invoke` for all others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from iii import InvocationError, TriggerAction
from stdlib_workers.bridge.options import DEFAULT_TIMEOUT_MS, BridgedFunction
from stdlib_workers.bridge.remote import BRIDGE_ERROR, Call, Caller, RemoteEngine
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


def forward_handler(bridged: BridgedFunction, remote: RemoteEngine) -> Handler:
    """Return the handler of a local function that calls one of the other engine."""

    async def forward(payload: Any, metadata: Any = None) -> Any:
        return await remote.call(Call(bridged.remote, payload, metadata, bridged.timeout_ms))

    return forward


def expose_handler(bridged: BridgedFunction, local: Caller) -> Handler:
    """Return the handler that the other engine gets for a function of this project."""

    async def expose(payload: Any, metadata: Any = None) -> Any:
        return await local.trigger_async(Call(bridged.local, payload, metadata, bridged.timeout_ms).request())

    return expose


async def invoke(remote: RemoteEngine, payload: Any) -> Any:
    """Call a function of the other engine by its id.

    Return its result. Every error is a `bridge_error` (public contract) whose details hold the original `code` and
    `message`.
    """
    call = _call_from(INVOKE, payload)
    try:
        return await remote.call(call)
    except InvocationError as error:
        details = {"code": error.code, "message": error.message}
        raise InvocationError(BRIDGE_ERROR, f"{error.code}: {error.message}", details=details) from None


async def invoke_async(remote: RemoteEngine, payload: Any) -> None:
    """Call a function of the other engine without waiting for its result; only for the connection."""
    call = _call_from(INVOKE_ASYNC, payload)
    await remote.call(Call(call.function_id, call.payload, None, call.timeout_ms, TriggerAction.Void()))


def _call_from(function_id: str, payload: Any) -> Call:
    fields = Payload(function_id, payload)
    timeout = fields.integer("timeout_ms", DEFAULT_TIMEOUT_MS, 1, _MAX_TIMEOUT_MS)
    return Call(fields.string("function_id"), fields.get("data"), None, timeout or DEFAULT_TIMEOUT_MS)
