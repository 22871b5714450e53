"""The other engine: one connection that the SDK makes again whenever it breaks, and calls over it.

A call without a connection waits for one until its timeout. This module does not know the functions of the bridge.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

from iii import InitOptions, InvocationError
from stdlib_workers.bridge.options import DEFAULT_TIMEOUT_MS, Options

# The bridge itself failed; errors of the called function keep their own code.
BRIDGE_ERROR = "bridge_error"
# Reconnect soon, since both engines belong to the same developers; with jitter, since several bridges may wait.
RECONNECTION = SimpleNamespace(initial_delay_ms=200, max_delay_ms=5000, jitter_factor=0.3)


class Caller(Protocol):
    """The part of a `Worker` that makes calls."""

    async def trigger_async(self, request: Any, payload: Any = None) -> Any: ...


class Connected(Caller, Protocol):
    """The part of a `Worker` that knows about its connection."""

    def get_connection_state(self) -> str: ...


@dataclass(frozen=True)
class Call:
    """One call to the other side. `action` None waits for the result."""

    function_id: str
    payload: Any = None
    metadata: Any = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    action: Any = None

    def request(self) -> dict[str, Any]:
        """Return the request of the SDK's `trigger`."""
        request: dict[str, Any] = {"function_id": self.function_id, "payload": self.payload}
        if self.action is not None:
            request["action"] = self.action
        else:
            request["timeout_ms"] = self.timeout_ms
        return request | ({} if self.metadata is None else {"metadata": self.metadata})


class RemoteEngine:
    """The other engine. `connected` is the bridge's worker there, once it has one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connected: Future[Connected] = Future()

    async def call(self, call: Call) -> Any:
        """Make a call there and return its result. InvocationError of the function, or `bridge_error`."""
        try:
            async with asyncio.timeout(call.timeout_ms / 1000):
                worker = await asyncio.wrap_future(self.connected)
            return await worker.trigger_async(call.request())
        except TimeoutError:
            raise self._unreachable(call) from None
        except InvocationError as error:
            if error.code == "TIMEOUT" and not self.is_connected:
                raise self._unreachable(call) from None
            raise

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open."""
        return self.connected.done() and self.connected.result().get_connection_state() == "connected"

    def _unreachable(self, call: Call) -> InvocationError:
        text = f"{call.function_id}: no engine answered at {self.url} for {call.timeout_ms} ms"
        return InvocationError(BRIDGE_ERROR, text, call.function_id)


def worker_options(options: Options) -> InitOptions:
    """Return the options with which the bridge registers on the other engine."""
    return InitOptions(
        worker_name=options.name,
        worker_description="Joins another engine to this one",
        # Not None: that would mean the namespace of this worker on its own engine.
        namespace=options.namespace or "default",
        headers={"Authorization": f"Bearer {options.token}"} if options.token else None,
        reconnection_config=RECONNECTION,
    )
