"""The engine's own functions and trigger types: `engine::*`.

They belong to a peer like any other, without a transport: `Builtins` runs the calls that the router puts into the
outbox of that peer, and gives the results back to the router. `introspection.py` makes the rows of lists; management
goes to a `Control`.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Raw, Struct, convert

from iii.arguments import arguments_from, check_config
from iii.declarations import load_declarations
from iii.engine.builtins import identity, introspection
from iii.engine.routing.bindings import Binding
from iii.engine.routing.events import FunctionsChanged, Notice, WorkersChanged
from iii.engine.routing.message_forms import malformed_name, without_reserved
from iii.engine.routing.misspelled_keys import REFUSE_MISSPELLED, misspelled_key
from iii.engine.routing.peer import Peer, Rights
from iii.engine.routing.quota import size_of
from iii.engine.routing.router import Router
from iii.engine.telemetry.metrics import WorkerMetrics
from iii.errors import ErrorCode, InvocationError
from iii.protocol import messages as m
from iii.protocol.codec import NotAnObject, decode, decode_object, decode_value, encode, encode_error, encode_value

# Seconds. A burst of registrations becomes one event.
ANNOUNCE_DEBOUNCE = 0.05

FUNCTIONS_AVAILABLE = "engine::functions-available"
WORKERS_AVAILABLE = "engine::workers-available"

CONDITION = "condition_function_id"

# Seconds that a provider may take to say whether it accepts a binding (public contract).
PROVIDER_TIMEOUT = 10.0


class Control(Protocol):
    """What the management functions need of the running engine."""

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per instance of the supervised workers."""

    async def start_worker(self, name: str) -> list[dict[str, Any]]: ...

    async def stop_worker(self, name: str) -> list[dict[str, Any]]: ...

    async def restart_worker(self, name: str) -> list[dict[str, Any]]: ...

    def counters(self) -> dict[str, int]:
        """Return how many messages and log lines were dropped or refused, by cause."""

    def health(self) -> dict[str, Any]:
        """Return whether the project serves, as `engine::health` answers."""

    def adopt(self, peer: Peer, pid: int) -> bool:
        """Make the peer a connection of the supervised process with that pid; False if there is none."""

    def identified(self, peer: Peer) -> None:
        """The peer has sent its name and metadata."""


# Bindings that no peer owns: nothing ends them but a call.
MAX_DURABLE_BINDINGS = 10_000
# Bytes of what a worker says of itself; all of it is kept while the worker is connected.
MAX_IDENTITY = 64 * 1024


class DurableTrigger(Struct):
    """The payload of `engine::register_trigger`."""

    trigger_type: str
    function_id: str
    config: Any = None
    metadata: Any = None
    trigger_namespace: str | None = None


Handler = Callable[[Raw, Peer], "Any | Awaitable[Any]"]


class Builtins:
    """The peer behind `engine::*`.

    `turn()` finishes a turn of the message pump, after messages that went to the router outside of one.
    `announce_debounce` is how many seconds registrations are gathered before they are announced.
    """

    def __init__(
        self,
        router: Router,
        control: Control,
        turn: Callable[[], None],
        announce_debounce: float = ANNOUNCE_DEBOUNCE,
    ) -> None:
        self._announce_debounce = announce_debounce
        self._router = router
        self._control = control
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bindings: dict[str, m.RegisterTrigger] = {}
        # By the call of the condition: the id of the binding, and the call of its function.
        self._conditions: dict[str, tuple[str, m.InvokeFunction]] = {}
        self._announce_timer: asyncio.TimerHandle | None = None
        self.worker_metrics = WorkerMetrics()
        self.peer = Peer("engine", kind="engine", name="engine", flush=self._run_outbox)
        self.peer.owner.is_validated = False  # each function decodes its own payload, with the contract's code
        router.peer_table.attach(self.peer)
        self._declarations = load_declarations(Path(__file__).parent)
        self._handlers: dict[str, Handler] = {}
        for id, (handler, description) in self._functions().items():
            self.serve(id, handler, description)
        for declaration in self._declarations.trigger_types.values():
            router.receive(self.peer, decode(encode_value({"type": "registertriggertype", **declaration})), b"", 0.0)
        self._announced_ids = self._function_ids()

    def _functions(self) -> dict[str, tuple[Handler, str]]:
        def listing(answer: Callable[[Router, Peer, introspection.Filters], Any]) -> Handler:
            return lambda payload, viewer: answer(self._router, viewer, introspection.filters_from(payload))

        def lookup(answer: Callable[[Router, Peer, Mapping[str, Any]], Any]) -> Handler:
            return lambda payload, viewer: answer(self._router, viewer, decode_object(payload))

        return {
            "engine::functions::list": (listing(introspection.functions_list), "List the registered functions"),
            "engine::functions::info": (lookup(introspection.functions_info), "Describe one function"),
            "engine::triggers::list": (
                listing(introspection.triggers_list),
                "List every registered trigger binding, by its trigger type",
            ),
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
            "engine::trigger-types::info": (lookup(introspection.triggers_info), "Describe one trigger type"),
            "engine::counters::list": (
                lambda *_: {"counters": self._control.counters()},
                "Count what was dropped or refused, by cause",
            ),
            "engine::health": (lambda *_: self._control.health(), "Say whether the project serves, and what does not"),
            "engine::register_trigger": (self._register_trigger, "Bind a function to an event until it is unbound"),
            "engine::unregister_trigger": (self._unregister_trigger, "Remove a binding"),
            "engine::workers::list": (self._workers_list, "List the workers with their processes and metrics"),
            "engine::workers::info": (self._workers_info, "Describe one worker"),
            "engine::workers::register": (self._workers_register, "Say who the calling worker is"),
            "engine::workers::restart": (self._command(self._control.restart_worker), "Replace a worker's processes"),
            "engine::workers::stop": (self._command(self._control.stop_worker), "Stop a worker"),
            "engine::workers::start": (self._command(self._control.start_worker), "Start a stopped worker"),
        }

    def _command(self, act: Callable[[str], Awaitable[list[dict[str, Any]]]]) -> Handler:
        async def manage(payload: Raw, _: Peer) -> Any:
            name = decode_object(payload).get("name")
            try:
                return {"workers": await act(str(name))}
            except KeyError:
                names = sorted({row["name"] for row in self._control.rows()})
                message = f"there is no worker {name!r}; there are: {', '.join(names)}"
                raise InvocationError(ErrorCode.NOT_FOUND, message) from None

        return manage

    def serve(self, id: str, handler: Handler, description: str) -> None:
        """Add a function; its handler may be another part of the engine."""
        self._handlers[id] = handler
        declared = self._declarations.functions.get(id, {})
        fields = {"type": "registerfunction", "id": id, "description": description, **declared}
        self._router.receive(self.peer, decode(encode_value(fields)), b"", 0.0)

    def _run_outbox(self) -> None:
        for message in self._router.calls.take_messages(self.peer):
            if isinstance(message, m.InvokeFunction):
                self._run(message)
            elif isinstance(message, m.RegisterTrigger):
                self._bind(message)
            elif isinstance(message, m.UnregisterTrigger):
                self._bindings.pop(message.id, None)
            elif isinstance(message, m.InvocationResult):
                self._fire_if(message)

    def _bind(self, message: m.RegisterTrigger) -> None:
        try:
            config = decode_value(message.config)
            check_config(config, message.trigger_type)
            if not isinstance(condition := condition_in(config), str | None):
                raise ValueError(f"{CONDITION} must be the id of a function, got {condition!r:.80}")
        except ValueError as error:
            refusal = encode_error(m.ErrorBody(ErrorCode.TRIGGER_REGISTRATION_FAILED, str(error)))
            answer = m.TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, refusal)
            self._router.receive(self.peer, answer, b"", self._loop.time())
        else:
            self._bindings[message.id] = message

    def _run(self, message: m.InvokeFunction) -> None:
        invocation = self._router.calls.in_flight.get(message.invocation_id or "")
        if invocation is None:
            return
        handler = self._handlers[message.function_id]
        try:
            self._check_keys(message)
            result = handler(message.data, invocation.origin)
        except Exception as error:  # noqa: BLE001 - see `_answer`
            result = error
        if inspect.isawaitable(result):
            task = self._loop.create_task(self._finish(message, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._answer(message, result)

    def _check_keys(self, message: m.InvokeFunction) -> None:
        """Raise `InvocationError` for a misspelled key. Longer payloads are none that a hand has typed."""
        schema = self._declarations.functions.get(message.function_id, {}).get("request_format", {})
        if REFUSE_MISSPELLED not in schema or len(message.data) > MAX_IDENTITY:
            return
        mismatch = misspelled_key(schema, decode_object(message.data))
        if mismatch is not None:
            text = f"{message.function_id}: {mismatch.pop('message')}"
            raise InvocationError(ErrorCode.INVALID_PAYLOAD, text, details=mismatch)

    async def _finish(self, message: m.InvokeFunction, result: Awaitable[Any]) -> None:
        try:
            value = await result
        except Exception as error:  # noqa: BLE001 - see `_answer`
            value = error
        self._answer(message, value)
        self._turn()

    def _answer(self, message: m.InvokeFunction, result: Any) -> None:
        """Answer with a result or an exception. A bug in one of our functions costs the call, not the caller."""
        answer = m.InvocationResult(message.invocation_id or "", message.function_id)
        if result is None:
            pass  # a function that returns nothing has no result (public contract)
        elif not isinstance(result, Exception):
            answer.result = Raw(encode_value(result))
        elif isinstance(result, InvocationError):
            answer.error = encode_error(m.ErrorBody(result.code, result.message, details=result.details or None))
        elif isinstance(result, NotAnObject):
            answer.error = encode_error(m.ErrorBody(ErrorCode.DESERIALIZATION_ERROR, "the payload must be an object"))
        elif isinstance(result, (ValueError, TypeError)):
            text = f"Failed to deserialize input for {message.function_id}: {result}"
            answer.error = encode_error(m.ErrorBody(ErrorCode.DESERIALIZATION_ERROR, text))
        else:
            self._loop.call_exception_handler({"message": message.function_id, "exception": result})
            answer.error = encode_error(m.ErrorBody(ErrorCode.INVOCATION_ERROR, f"internal error: {result}"))
        self._router.receive(self.peer, answer, encode(answer), self._loop.time())

    def _workers_list(self, payload: Raw, origin: Peer) -> Any:
        if decode_object(payload).get("worker_id"):
            return {"workers": [self._workers_info(payload, origin)["worker"]]}
        filters = introspection.filters_from(payload)
        return introspection.workers_list(self._router, origin, self._control.rows(), filters)

    def _workers_info(self, payload: Raw, origin: Peer) -> Any:
        rows, fields, now = self._control.rows(), decode_object(payload), time.time()
        return introspection.workers_info(
            self._router, origin, rows, fields, lambda id: self.worker_metrics.latest(id, now)
        )

    def _workers_register(self, payload: Raw, origin: Peer) -> Any:
        if len(payload) > MAX_IDENTITY:
            text = f"what a worker says of itself has at most {MAX_IDENTITY} bytes, this has {len(payload)}"
            raise InvocationError(ErrorCode.PAYLOAD_TOO_LARGE, text)
        fields = decode_object(payload)
        origin.features = identity.features_in(fields)  # before its functions are registered
        pid = fields.get("pid")
        is_adopted = type(pid) is int and self._control.adopt(origin, pid)
        if not is_adopted and not identity.introduce(self._router, origin, fields):
            return {"success": False}
        identity.note_metadata(self._router, origin, fields)
        self._control.identified(origin)
        return {"success": True}

    async def _register_trigger(self, payload: Raw, origin: Peer) -> Any:
        """Bind a function of the default namespace to an event. No peer owns the binding: it outlives its caller."""
        trigger = convert(decode_object(payload), DurableTrigger)
        try:
            check_config(trigger.config, trigger.trigger_type)
        except ValueError as wrong_config:
            raise InvocationError(ErrorCode.TRIGGER_REGISTRATION_FAILED, str(wrong_config)) from None
        message = m.RegisterTrigger(
            id=self._router.calls.mint_id(),
            trigger_type=trigger.trigger_type,
            function_id=trigger.function_id,
            config=Raw(encode_value(trigger.config)),
            metadata=m.ABSENT if trigger.metadata is None else Raw(encode_value(trigger.metadata)),
            trigger_namespace=trigger.trigger_namespace,
        )
        if (wrong := malformed_name(message)) is not None:
            raise InvocationError(ErrorCode.INVALID_MESSAGE, wrong)
        if origin.rights is not None:
            message.metadata = without_reserved(message.metadata)
        self._check_room(message)
        binding = Binding(message, None, rights=origin.rights)
        answered: asyncio.Future[m.TriggerRegistrationResult] = self._loop.create_future()
        self._router.bindings.awaited[binding.id] = answered.set_result
        self._router.registrations.send_all(self._router.bindings.bind(binding))
        self._turn()
        try:
            # A parked binding is no failure, and the engine's own trigger types accept every binding.
            if binding.provider not in (None, self.peer):
                answer = await asyncio.wait_for(answered, PROVIDER_TIMEOUT)
                if not m.is_empty(answer.error):
                    self._router.registrations.send_all(self._router.bindings.remove(binding.id))
                    error = decode_value(answer.error, type=m.ErrorBody)
                    code = ErrorCode.TRIGGER_REGISTRATION_FAILED
                    raise InvocationError(code, error.message, details={"code": error.code})
        except TimeoutError:
            pass  # the contract takes silence for consent
        finally:
            self._router.bindings.awaited.pop(binding.id, None)
        return {"id": binding.id}

    def _check_room(self, message: m.RegisterTrigger) -> None:
        """Raise `InvocationError` if the bindings that no peer owns are too many, or too large with this one."""
        durable = [binding.declaration() for binding in self._router.bindings if binding.is_durable]
        size = sum(map(size_of, durable)) + size_of(message)
        most = self._router.calls.budget.share // 2
        if len(durable) >= MAX_DURABLE_BINDINGS or size > most:
            text = (
                f"there are {len(durable)} bindings made by engine::register_trigger, at most {MAX_DURABLE_BINDINGS} "
                f"of together {most / 1e6:.0f} MB may be; remove some with engine::unregister_trigger"
            )
            raise InvocationError(ErrorCode.LIMIT_EXCEEDED, text)

    def _unregister_trigger(self, payload: Raw, _: Peer) -> Any:
        id = decode_object(payload).get("id")
        if not isinstance(id, str) or self._router.bindings.find(id) is None:
            return {"removed": False}
        self._router.registrations.send_all(self._router.bindings.remove(id))
        return {"removed": True}

    def on_event(self, event: FunctionsChanged | WorkersChanged) -> None:
        """Call the functions that are bound to the engine's own trigger types."""
        if isinstance(event, WorkersChanged):
            changes = {"event": event.event, "worker_id": event.worker_id}
            self._fire(WORKERS_AVAILABLE, lambda _: changes)
        elif self._announce_timer is None:
            self._announce_timer = self._loop.call_later(self._announce_debounce, self._announce_functions)

    def _announce_functions(self) -> None:
        self._announce_timer = None
        ids = self._function_ids()
        added, removed = sorted(ids - self._announced_ids), sorted(self._announced_ids - ids)
        self._announced_ids = ids
        if added or removed:
            self._fire(FUNCTIONS_AVAILABLE, lambda rights: self._functions_changed(rights, added, removed))
            self._turn()

    def _functions_changed(self, rights: Rights | None, added: list[str], removed: list[str]) -> dict[str, Any]:
        """Return the event as the owner of a binding may hear it: a session, of the functions that it may call."""
        rows = introspection.function_rows(self._router, rights, introspection.Filters(include_internal=True))
        if rights is not None:
            listed = {row["function_id"] for row in rows}
            added = [id for id in added if id in listed]
            removed = [id for id in removed if rights.may_invoke(m.DEFAULT_NAMESPACE, id)]
        return {"event": "functions_changed", "functions": rows, "added": added, "removed": removed}

    def _function_ids(self) -> set[str]:
        return {function.id for function in self._router.registry}

    def _fire(self, trigger_type: str, payload_for: Callable[[Rights | None], Mapping[str, Any]]) -> None:
        """Call what is bound to one of the engine's trigger types, each with what the binding's owner may hear."""
        whole = None
        for binding in list(self._bindings.values()):
            if binding.trigger_type == trigger_type:
                bound = self._router.bindings.find(binding.id)
                rights = bound.rights if bound is not None else None
                if rights is None:
                    data = whole = whole or Raw(encode_value(payload_for(None)))
                else:
                    data = Raw(encode_value(payload_for(rights)))
                self._call(binding, data)

    def _call(self, binding: m.RegisterTrigger, event: Raw) -> None:
        """Call the function of a binding with an event, or its condition first."""
        config, payload = decode_value(binding.config), event
        if (arguments := arguments_from(config)) is not None:
            # What is missing there its schema says, in the failure of the call.
            payload = Raw(encode_value(arguments.read(decode_value(event))[0]))
        metadata, namespace = binding.metadata, binding.namespace
        call = m.InvokeFunction(binding.function_id, data=payload, metadata=metadata, namespace=namespace)
        if condition := condition_in(config):
            id = self._router.calls.mint_id()
            self._conditions[id] = binding.id, call
            call = m.InvokeFunction(
                condition, invocation_id=id, data=event, metadata=metadata, namespace=namespace or m.DEFAULT_NAMESPACE
            )
        self._router.receive(self.peer, call, encode(call), self._loop.time())

    def _fire_if(self, answer: m.InvocationResult) -> None:
        """A condition has answered: call the function unless it said `false`, or failed."""
        binding_id, call = self._conditions.pop(answer.invocation_id, ("", None))
        if call is None or binding_id not in self._bindings:
            return
        if not m.is_empty(answer.error):
            error = decode_value(answer.error, type=m.ErrorBody)
            text = f"{call.function_id} was not called: its condition failed: {error.code}: {error.message}"
            self._router.calls.events.append(Notice("", text, "condition_failed"))
        elif bytes(m.or_null(answer.result)).strip() != b"false":
            self._router.receive(self.peer, call, b"", self._loop.time())

    def close(self) -> None:
        if self._announce_timer is not None:
            self._announce_timer.cancel()


def condition_in(config: Any) -> Any:
    """Return the function that a binding's config wants asked before each call, None for none."""
    return (config.get(CONDITION) or None) if isinstance(config, dict) else None
