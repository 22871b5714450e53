"""The adapter `bridge`: another engine's configuration worker keeps everything, this one forwards calls and events.

Events are brought to the bindings of this project one after the other, before the other engine is answered: when this
process ends meanwhile, the other engine brings them again. Who is away in that moment is not told later.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from threading import Event
from types import SimpleNamespace
from typing import Any, NoReturn

from iii import InitOptions, InvocationError, Logger, RegistrationRejectedError, Worker, register_worker
from stdlib_workers.configuration.events import Subscription
from stdlib_workers.configuration.owners import ask_owners
from stdlib_workers.events import Caller, fire
from stdlib_workers.values import Payload, encode, end_worker

# How long the other engine may take, for its connection and for its answer.
CALL_MS = 10_000
# Both engines belong to the same people: reconnect soon, with jitter, since several may wait.
RECONNECTION = SimpleNamespace(initial_delay_ms=200, max_delay_ms=5000, jitter_factor=0.3)
CONFIGURATION = "configuration::"


class Remote:
    """Calls and events of the other engine. `connected` is the worker there, once there is one."""

    def __init__(self, url: str, bindings: Iterable[Subscription], caller: Caller) -> None:
        self._url = url
        self._bindings = bindings
        self._caller = caller
        self._log = Logger(service_name="configuration")
        self.connected: Future[Worker] = Future()

    def handler(self, name: str) -> Callable[[Any], Awaitable[Any]]:
        """Return the handler of a function `configuration::NAME`, which asks the other engine."""

        async def forward(payload: Any) -> Any:
            if name == "set":
                await self._ask_owners(Payload(f"{CONFIGURATION}set", payload))
            return await self._call(f"{CONFIGURATION}{name}", payload)

        return forward

    async def _ask_owners(self, fields: Payload) -> None:
        value = fields.value("value")
        # Variables are the other engine's to fill in: what they make of the value is not known here.
        if b"${" not in encode(value):
            await ask_owners(self._caller, self._bindings, fields.string("id"), value)

    async def _call(self, function_id: str, payload: Any) -> Any:
        try:
            async with asyncio.timeout(CALL_MS / 1000):
                worker = await asyncio.shield(asyncio.wrap_future(self.connected))
                return await worker.trigger_async({"function_id": function_id, "payload": payload})
        except TimeoutError:
            text = f"no configuration worker answered at {self._url} for {CALL_MS} ms"
            raise InvocationError("ADAPTER_ERROR", text) from None
        except InvocationError as error:
            if error.code == "function_not_found":
                text = f"the engine at {self._url} has no configuration worker: `iii add configuration` there"
                raise InvocationError("ADAPTER_ERROR", text) from None
            raise InvocationError(error.code, error.message, details=error.details) from None

    async def on_event(self, event: Mapping[str, Any]) -> None:
        """Bring an event of the other engine to the bindings here that want it, the global ones first."""
        id, event_type = event["id"], event["event_type"]
        wanted = [each for each in self._bindings if each.wants(id, event_type)]
        for each in sorted(wanted, key=lambda each: each.configuration_id is not None):
            try:
                await fire(self._caller, each.target, event)
            except InvocationError as error:
                self._log.warn(f"{each.target.function_id} has not taken {event_type} of {id}: {error.message}")


def follow(remote: Remote, url: str, token: str | None) -> NoReturn:
    """Be a worker of the other engine until that connection is over for good, which ends the process."""
    # Under the same name after a restart, so that the other engine brings what happened meanwhile.
    place = f"{socket.gethostname()}:{os.environ.get('III_PROJECT', '.')}"
    name = f"iii-configuration-bridge-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    options = InitOptions(
        worker_name=name,
        worker_description="Forwards the configurations of another engine",
        namespace="default",
        headers={"Authorization": f"Bearer {token}"} if token else None,
        reconnection_config=RECONNECTION,
    )
    sys.stderr.write(f"the configurations are those of {url}, as soon as it answers\n")
    try:
        worker = register_worker(url, options)
    except RegistrationRejectedError as error:
        end_worker(f"configuration: {url} does not take this worker: {error}", 1)
    function_id = f"{name}::on-change"
    worker.register_function(function_id, remote.on_event, metadata={"internal": True})
    worker.register_trigger({"type": "configuration", "function_id": function_id, "config": {}})
    remote.connected.set_result(worker)
    ended = Event()
    worker.add_connection_state_listener(lambda state: ended.set() if state in ("failed", "disconnected") else None)
    ended.wait()
    end_worker(f"configuration: the connection to {url} has ended: {worker.rejection or 'it is not made again'}", 1)
