"""Handlers of the bridge (forwarded functions, exposed functions, `bridge.invoke` for all others), and their calls.

The other engine is one connection that the SDK makes again whenever it breaks. A call without a connection waits for
one until its timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from iii import InvocationError, TriggerAction, TriggerRequestInput, Worker
from stdlib_workers.bridge.options import DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS, BridgedFunction
from stdlib_workers.values import Payload

Handler = Callable[[Any, Any], Awaitable[Any]]

INVOKE, INVOKE_ASYNC = "bridge.invoke", "bridge.invoke_async"
# The bridge itself failed; errors of the called function keep their own code.
BRIDGE_ERROR = "bridge_error"


@dataclass(frozen=True)
class Call:
    """One call to the other side. `action` None waits for the result."""

    function_id: str
    payload: Any = None
    metadata: Any = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    action: Any = None

    def request(self) -> TriggerRequestInput:
        """Return the call as the SDK takes it, which carries on the running invocation's trace and what led to it."""
        request: TriggerRequestInput = {"function_id": self.function_id, "payload": self.payload}
        if self.action is not None:
            request["action"] = self.action
        else:
            request["timeout_ms"] = self.timeout_ms
        return request if self.metadata is None else {**request, "metadata": self.metadata}


class RemoteEngine:
    """The other engine. `connected` is the bridge's worker there, once it has one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connected: Future[Worker] = Future()

    async def call(self, call: Call) -> Any:
        """Make a call there and return its result. InvocationError of the function, or `bridge_error`."""
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                worker = await asyncio.wrap_future(self.connected)
            return await worker.trigger_async(call.request())
        except TimeoutError:
            raise self._unreachable(call) from None
        except InvocationError as error:
            if error.code == "TIMEOUT" and worker.get_connection_state() != "connected":
                raise self._unreachable(call) from None
            raise

    def _unreachable(self, call: Call) -> InvocationError:
        text = f"{call.function_id}: no engine answered at {self.url} for {call.timeout_ms} ms"
        return InvocationError(BRIDGE_ERROR, text, call.function_id)


def forward_handler(bridged: BridgedFunction, remote: RemoteEngine) -> Handler:
    """Return the handler of a local function that calls one of the other engine."""

    async def forward(payload: Any, metadata: Any = None) -> Any:
        return await remote.call(Call(bridged.remote, payload, metadata, bridged.timeout_ms))

    return forward


def expose_handler(bridged: BridgedFunction, local: Worker) -> Handler:
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
    timeout = fields.integer("timeout_ms", DEFAULT_TIMEOUT_MS, 1, MAX_TIMEOUT_MS)
    return Call(fields.string("function_id"), fields.get("data"), None, timeout or DEFAULT_TIMEOUT_MS)
