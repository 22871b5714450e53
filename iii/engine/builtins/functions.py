"""The engine's own functions and trigger types: `engine::*`, themselves a peer like any other.

Their peer has no transport: what the router puts into its outbox is run here, and the answers go back through the
router. Introspection answers from `introspection.py`; management goes to the `Control` that the composition root
passes in.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Raw, Struct, convert

from iii.engine.builtins import identity, introspection
from iii.engine.routing.bindings import Binding
from iii.engine.routing.events import FunctionsChanged, WorkersChanged
from iii.engine.routing.local_peer import take_messages
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.engine.telemetry.metrics import WorkerMetrics
from iii.errors import ErrorCode, InvocationError
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode, encode_error, encode_value

# Bursts of registrations become one event.
COALESCE = 0.05

FUNCTIONS_AVAILABLE = "engine::functions-available"
WORKERS_AVAILABLE = "engine::workers-available"

# How long a provider may take to say whether it accepts a binding (public contract).
PROVIDER_PATIENCE = 10.0

# What a handler returns to leave `result` out of the answer.
NOTHING = object()


class Control(Protocol):
    """What the management functions need of the running engine."""

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per instance of the supervised workers."""

    async def start_worker(self, name: str) -> list[dict[str, Any]]: ...

    async def stop_worker(self, name: str) -> list[dict[str, Any]]: ...

    async def restart_worker(self, name: str) -> list[dict[str, Any]]: ...

    def counters(self) -> dict[str, int]:
        """Return how often what was dropped, by cause."""

    def adopt(self, peer: Peer, pid: int) -> bool:
        """Make the peer a connection of the supervised process with that pid; False if there is none."""

    def identified(self, peer: Peer) -> None:
        """A peer said who it is."""


class DurableTrigger(Struct):
    """The payload of `engine::register_trigger`."""

    trigger_type: str
    function_id: str
    config: Any = None
    metadata: Any = None
    trigger_namespace: str | None = None

    def message(self, id: str) -> m.RegisterTrigger:
        """Return the registration it stands for; the function is looked up in the default namespace."""
        metadata = m.ABSENT if self.metadata is None else Raw(encode_value(self.metadata))
        return m.RegisterTrigger(
            id=id,
            trigger_type=self.trigger_type,
            function_id=self.function_id,
            config=Raw(encode_value(self.config)),
            metadata=metadata,
            trigger_namespace=self.trigger_namespace,
        )


Handler = Callable[[Raw, Peer], "Any | Awaitable[Any]"]


class Builtins:
    """The peer behind `engine::*`. `turn` is called after it put something into the router by itself."""

    def __init__(self, router: Router, control: Control, turn: Callable[[], None]) -> None:
        self._router = router
        self._control = control
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bindings: dict[str, m.RegisterTrigger] = {}
        self._known: set[str] = set()
        self._announcement: asyncio.TimerHandle | None = None
        self.worker_metrics = WorkerMetrics()
        self.peer = Peer("engine", kind="engine", name="engine")
        self.peer.flush = self._run_outbox
        self._handlers = self._table()
        self._register()

    def _table(self) -> dict[str, tuple[Handler, str]]:
        def listing(answer: Callable[[Router, introspection.Filters], Any]) -> Handler:
            return lambda payload, _: answer(self._router, introspection.as_filters(payload))

        def lookup(answer: Callable[[Router, Mapping[str, Any]], Any]) -> Handler:
            return lambda payload, _: answer(self._router, _as_object(payload))

        def command(act: Callable[[str], Awaitable[list[dict[str, Any]]]]) -> Handler:
            return lambda payload, _: self._manage(act, payload)

        return {
            "engine::functions::list": (listing(introspection.functions_list), "List the registered functions"),
            "engine::functions::info": (lookup(introspection.functions_info), "Describe one function"),
            "engine::triggers::list": (listing(introspection.triggers_list), "List every trigger binding"),
            "engine::triggers::info": (lookup(introspection.triggers_info), "Describe one trigger type"),
            "engine::registered-triggers::list": (
                listing(introspection.registered_triggers_list),
                "List every trigger binding",
            ),
            "engine::registered-triggers::info": (
                lookup(introspection.registered_triggers_info),
                "Describe one trigger binding",
            ),
            "engine::trigger-types::list": (listing(introspection.trigger_types_list), "List the trigger types"),
            "engine::counters::list": (self._counters_list, "Count what was dropped or refused, by cause"),
            "engine::register_trigger": (self._register_trigger, "Bind a function to an event until it is unbound"),
            "engine::unregister_trigger": (self._unregister_trigger, "Remove a binding"),
            "engine::workers::list": (self._workers_list, "List the workers with their processes and metrics"),
            "engine::workers::info": (self._workers_info, "Describe one worker"),
            "engine::workers::register": (self._workers_register, "Say who the calling worker is"),
            "engine::workers::restart": (command(self._control.restart_worker), "Replace a worker's processes"),
            "engine::workers::stop": (command(self._control.stop_worker), "Stop a worker"),
            "engine::workers::start": (command(self._control.start_worker), "Start a stopped worker"),
        }

    def _register(self) -> None:
        self._router.peer_table.attach(self.peer)
        for id, (_, description) in self._handlers.items():
            self._router.receive(self.peer, m.RegisterFunction(id, description), b"", 0.0)
        types = {
            FUNCTIONS_AVAILABLE: "Fires when the set of registered functions changes",
            WORKERS_AVAILABLE: "Fires when a worker connects, disconnects or says who it is",
        }
        for id, description in types.items():
            self._router.receive(self.peer, m.RegisterTriggerType(id, description), b"", 0.0)
        self._known = self._function_ids()

    def serve(self, id: str, handler: Handler, description: str) -> None:
        """Add a function that another part of the engine answers."""
        self._handlers[id] = (handler, description)
        self._router.receive(self.peer, m.RegisterFunction(id, description), b"", 0.0)

    # Running what the router sent

    def _run_outbox(self) -> None:
        for message in take_messages(self.peer, self._router.calls):
            if isinstance(message, m.InvokeFunction):
                self._run(message)
            elif isinstance(message, m.RegisterTrigger):
                self._bindings[message.id] = message
            elif isinstance(message, m.UnregisterTrigger):
                self._bindings.pop(message.id, None)

    def _run(self, message: m.InvokeFunction) -> None:
        invocation = self._router.calls.in_flight.get(message.invocation_id or "")
        if invocation is None:
            return
        handler = self._handlers[message.function_id][0]
        try:
            result = handler(message.data, invocation.origin)
        except Exception as error:  # noqa: BLE001 - see `_failure`
            self._answer(message, self._failure(message, error))
        else:
            if inspect.isawaitable(result):
                task = self._loop.create_task(self._finish(message, result))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._answer(message, result)

    async def _finish(self, message: m.InvokeFunction, result: Awaitable[Any]) -> None:
        try:
            value = await result
        except Exception as error:  # noqa: BLE001 - see `_failure`
            value = self._failure(message, error)
        self._answer(message, value)
        self._turn()

    def _failure(self, message: m.InvokeFunction, error: Exception) -> InvocationError:
        """Return what the caller is told. A bug in one of our functions costs the call, not the caller."""
        if isinstance(error, InvocationError):
            return error
        if isinstance(error, (ValueError, TypeError)):
            text = f"Failed to deserialize input for {message.function_id}: {error}"
            return InvocationError(ErrorCode.DESERIALIZATION_ERROR, text)
        self._loop.call_exception_handler({"message": message.function_id, "exception": error})
        return InvocationError(ErrorCode.INVOCATION_ERROR, f"internal error: {error}")

    def _answer(self, message: m.InvokeFunction, value: Any) -> None:
        answer = m.InvocationResult(message.invocation_id or "", message.function_id)
        if isinstance(value, InvocationError):
            answer.error = encode_error(m.ErrorBody(value.code, value.message, details=value.details or None))
        elif value is not NOTHING:
            answer.result = Raw(encode_value(value))
        self._router.receive(self.peer, answer, encode(answer), self._loop.time())

    # Handlers

    def _counters_list(self, _: Raw, __: Peer) -> Any:
        return {"counters": self._control.counters()}

    def _workers_list(self, payload: Raw, _: Peer) -> Any:
        fields = _as_object(payload)
        rows = self._control.rows()
        if fields.get("worker_id"):
            return {"workers": [introspection.workers_info(self._router, rows, fields, self._reported)["worker"]]}
        return introspection.workers_list(self._router, rows, introspection.as_filters(payload))

    def _workers_info(self, payload: Raw, _: Peer) -> Any:
        return introspection.workers_info(self._router, self._control.rows(), _as_object(payload), self._reported)

    def _reported(self, worker: str) -> dict[str, Any] | None:
        return self.worker_metrics.latest(worker, time.time())

    def _workers_register(self, payload: Raw, origin: Peer) -> Any:
        said = _as_object(payload)
        pid = said.get("pid")
        is_adopted = type(pid) is int and self._control.adopt(origin, pid)
        if not is_adopted and not identity.introduce(self._router, origin, said):
            return {"success": False}
        identity.note(self._router, origin, said)
        self._control.identified(origin)
        return {"success": True}

    async def _manage(self, act: Callable[[str], Awaitable[list[dict[str, Any]]]], payload: Raw) -> Any:
        name = _as_object(payload).get("name")
        try:
            rows = await act(str(name))
        except KeyError:
            known = sorted({row["name"] for row in self._control.rows()})
            message = f"there is no worker {name!r}; there are: {', '.join(known)}"
            raise InvocationError(ErrorCode.NOT_FOUND, message) from None
        return {"workers": rows}

    # Bindings that outlive whoever makes them

    async def _register_trigger(self, payload: Raw, _: Peer) -> Any:
        wanted = convert(_as_object(payload), DurableTrigger)
        binding = Binding(wanted.message(self._router.calls.mint_id()), None)
        answered: asyncio.Future[m.TriggerRegistrationResult] = self._loop.create_future()
        self._router.bindings.awaited[binding.id] = answered.set_result
        self._router.registrations.send_all(self._router.bindings.bind(binding))
        self._turn()
        try:
            # A parked binding is no failure, and the engine's own types take any.
            if binding.provider not in (None, self.peer):
                await self._settle(binding, answered)
        finally:
            self._router.bindings.awaited.pop(binding.id, None)
        return {"id": binding.id}

    async def _settle(self, binding: Binding, answered: asyncio.Future[m.TriggerRegistrationResult]) -> None:
        try:
            answer = await asyncio.wait_for(answered, PROVIDER_PATIENCE)
        except TimeoutError:
            return  # the contract takes silence for consent
        if not m.is_empty(answer.error):
            self._router.registrations.send_all(self._router.bindings.remove(binding.id))
            error = decode_value(answer.error, type=m.ErrorBody)
            raise InvocationError(ErrorCode.TRIGGER_REGISTRATION_FAILED, error.message, details={"code": error.code})

    def _unregister_trigger(self, payload: Raw, _: Peer) -> Any:
        id = _as_object(payload).get("id")
        is_known = isinstance(id, str) and self._router.bindings.find(id) is not None
        if is_known:
            self._router.registrations.send_all(self._router.bindings.remove(str(id)))
        return {"removed": is_known}

    # Events of the engine's own trigger types

    def on_event(self, event: FunctionsChanged | WorkersChanged) -> None:
        """Tell the functions bound to the engine's own triggers."""
        if isinstance(event, WorkersChanged):
            self._fire(WORKERS_AVAILABLE, {"event": event.event, "worker_id": event.worker_id})
        elif self._announcement is None:
            self._announcement = self._loop.call_later(COALESCE, self._announce_functions)

    def _announce_functions(self) -> None:
        self._announcement = None
        now_known = self._function_ids()
        added, removed = sorted(now_known - self._known), sorted(self._known - now_known)
        self._known = now_known
        if added or removed:
            rows = introspection.functions_list(self._router, introspection.Filters(include_internal=True))
            changes = {"event": "functions_changed", **rows, "added": added, "removed": removed}
            self._fire(FUNCTIONS_AVAILABLE, changes)
            self._turn()

    def _function_ids(self) -> set[str]:
        return {function.id for function in self._router.registry}

    def _fire(self, trigger_type: str, payload: Mapping[str, Any]) -> None:
        data = None
        for binding in list(self._bindings.values()):
            if binding.trigger_type == trigger_type:
                data = data or Raw(encode_value(payload))
                call = m.InvokeFunction(
                    binding.function_id, data=data, metadata=binding.metadata, namespace=binding.namespace
                )
                self._router.receive(self.peer, call, b"", self._loop.time())

    def close(self) -> None:
        """Stop announcing."""
        if self._announcement is not None:
            self._announcement.cancel()


def _as_object(payload: Raw) -> dict[str, Any]:
    if m.is_empty(payload):
        return {}
    value = decode_value(payload)
    if not isinstance(value, dict):
        raise InvocationError(ErrorCode.DESERIALIZATION_ERROR, "the payload must be an object")
    return value
