"""What a worker offers: functions, triggers that it binds, trigger types and actions that it provides.

The registering half of `Worker`. Each method checks what user code gave, keeps what the receiver will look up, and
sends the registration; it is kept to be sent again over a new connection.
"""

from __future__ import annotations

import os
import sys

from iii.ids import mint_id
from iii.version import VERSION
from iii.worker.api.triggers import FunctionRef, Trigger, TriggerTypeRef, fields_of
from iii.worker.functions.handler import describe, handler_from, takes_whole_payload, typed_handler_from
from iii.worker.functions.schema import format_from_hint
from iii.worker.functions.signature import UnresolvedAnnotation, read_signature, source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar, Unpack

    from iii.worker.api.http_functions import HttpInvocationConfig, HttpInvocationModel
    from iii.worker.api.observers import ObserverHandle, ObserverOptions, ObserveSource
    from iii.worker.api.options import FunctionOptions, InitOptions
    from iii.worker.api.triggers import (
        RegisterTriggerInput,
        RegisterTriggerTypeInput,
        TriggerHandler,
        TriggerInput,
        TriggerTypeInput,
    )
    from iii.worker.codec.codec import Message
    from iii.worker.functions.handler import Handler
    from iii.worker.runtime.dispatcher import Dispatcher
    from iii.worker.runtime.readiness import Readiness
    from iii.worker.runtime.receiver import Receiver
    from iii.worker.runtime.runner import Runner

    F = TypeVar("F", bound=Callable[..., Any])

REGISTER = "engine::workers::register"


class Registering:
    """Registers with the engine what this process has. The attributes below are the worker's."""

    _namespace: str | None
    _dispatcher: Dispatcher
    _receiver: Receiver
    _runner: Runner
    _readiness: Readiness
    _registrations: dict[tuple[str, str], Message]
    # The id of each typed function, and whether it takes its arguments by name: several decorators bind one function.
    _typed_functions: dict[Callable[..., Any], tuple[str, bool]]
    _send: Callable[[Message], None]

    def register_function(
        self,
        function_id: str,
        handler: Callable[..., Any] | HttpInvocationConfig | HttpInvocationModel,
        *,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        request_format: dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> FunctionRef:
        """Offer `handler(payload)` as `function_id` (`service::name`).

        The handler may be sync or async, takes the decoded JSON payload and returns a JSON value; a parameter named
        `metadata` gets the caller's metadata. Formats (JSON Schemas) and description come from the handler's type
        hints and docstring unless given. A `HttpInvocationConfig` (ours or the public SDK's) in place of the handler
        offers a function that lives behind a URL. ValueError for a blank or taken id, TypeError for a handler that
        cannot be called.

            def double(payload: int) -> int:
                return payload * 2

            worker.register_function("math::double", double)
        """
        options: FunctionOptions = {"description": description, "metadata": metadata}
        options |= {"request_format": request_format, "response_format": response_format}
        if not hasattr(handler, "url"):
            return self._register(function_id, handler, options, typed=False)
        from iii.worker.api.http_functions import invocation_to_wire, refuse_locally  # few workers have such functions

        self._check_function(function_id, refuse_locally)
        details = {**options, "invocation": invocation_to_wire(handler)}
        return self._offer(handler_from(function_id, refuse_locally), details)

    def function(self, function_id: str, **options: Unpack[FunctionOptions]) -> Callable[[F], F]:
        """Decorate a function with typed parameters: the payload's keys become its arguments.

        Takes the keyword arguments of `register_function`. The function stays as it is and can be called directly.
        A payload that does not fit the parameters is refused with InvocationError `invalid_payload`.

            @worker.function("math::add")
            def add(a: float, b: float) -> float:
                return a + b
        """

        def register(handler: F) -> F:
            self._register(function_id, handler, options, typed=True)
            return handler

        return register

    def _register(
        self,
        function_id: str,
        handler: Callable[..., Any],
        options: FunctionOptions,
        *,
        typed: bool,
        by_name: bool = False,
    ) -> FunctionRef:
        source = source_of(handler, os.environ.get("III_PROJECT", ""))
        self._check_function(function_id, handler, source)
        try:
            details = describe(handler, typed=typed, by_name=by_name)
            wrapped = (
                typed_handler_from(function_id, handler, by_name=by_name)
                if typed
                else handler_from(function_id, handler)
            )
        except UnresolvedAnnotation as error:
            raise TypeError(f"{function_id}: {error}") from None
        details.update({key: value for key, value in options.items() if value is not None})
        if typed:
            takes_arguments = by_name or not takes_whole_payload(read_signature(handler))
            self._typed_functions[handler] = function_id, takes_arguments
        return self._offer(wrapped, {**details, "source": source})

    def _check_function(self, function_id: str, handler: Any, source: dict[str, Any] | None = None) -> None:
        if not isinstance(function_id, str) or not function_id.strip():
            raise ValueError(f"a function id must be a service::name, not {function_id!r}")
        if not callable(handler):
            raise TypeError(f"the handler of {function_id} must be callable, not {handler!r}")
        if function_id in self._receiver.functions:
            first = self._registrations.get(("registerfunction", function_id), {}).get("source")
            raise ValueError(f"function {function_id} is registered already in this worker{_how(first, source)}")

    def _offer(self, handler: Handler, details: dict[str, Any]) -> FunctionRef:
        functions, function_id = self._receiver.functions, handler.function_id

        def unregister() -> None:
            if functions.pop(function_id, None) is not None:
                self._withdraw("registerfunction", {"type": "unregisterfunction", "id": function_id})

        functions[function_id] = handler
        self._send_registration({"type": "registerfunction", "id": function_id, **details})
        return FunctionRef(function_id, unregister)

    # Triggers, trigger types, actions

    def register_trigger(self, trigger: TriggerInput | RegisterTriggerInput) -> Trigger:
        """Bind an event to a function, and return the binding.

        `trigger` is a dict or an object with these fields, such as a `RegisterTriggerInput` (ours or the public SDK's).
        `config` is what the trigger's type wants: a path and a method for `http`, an expression for `cron`. The
        function and the provider of the type may register later. `namespace` is the function's, by default this
        worker's. ValueError when `type` or `function_id` is missing.

            worker.register_trigger(
                {"type": "http", "function_id": "math::add", "config": {"api_path": "add", "http_method": "POST"}}
            )
        """
        names = ("type", "function_id", "config", "metadata", "namespace", "trigger_namespace")
        fields: Message = fields_of(trigger, *names)
        for key in ("type", "function_id"):
            value = fields[key]
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"a trigger needs a {key}, not {value!r}")
        binding = {"id": mint_id(), "trigger_type": fields.pop("type")}
        config = fields["config"] or {}
        if binding["trigger_type"] == "http" and isinstance(config, dict) and config.get("payload") == "arguments":
            # A call that cannot stream is cheaper; where this is not known the http worker is ready for items.
            handler = self._receiver.functions.get(fields["function_id"])
            if handler is not None and handler.yields is not None:
                config = {"stream": handler.yields, **config}
        fields |= {"config": config, "namespace": fields["namespace"] or self._namespace}
        self._send_registration({"type": "registertrigger", **binding, **fields})
        withdrawal = {"type": "unregistertrigger", **binding}
        return Trigger(binding["id"], lambda: self._withdraw("registertrigger", withdrawal))

    def register_trigger_type(
        self, trigger_type: TriggerTypeInput | RegisterTriggerTypeInput, handler: TriggerHandler
    ) -> TriggerTypeRef:
        """Provide a trigger type: the engine tells `handler` of each binding, and the handler's worker fires them.

        `trigger_type` is a dict or an object with these fields, such as a `RegisterTriggerTypeInput`.
        `trigger_request_format`, `call_request_format` and `call_response_format` are the JSON Schemas of a binding's
        config, of the events, and of what a bound function may answer, or classes that describe them as type hints do.
        ValueError without an id.

            worker.register_trigger_type({"id": "doorbell", "description": "Someone rings."}, Doorbells())
        """
        formats = ("trigger_request_format", "call_request_format", "call_response_format")
        fields = fields_of(trigger_type, "id", "description", *formats)
        type_id = fields["id"]
        if not isinstance(type_id, str) or not type_id.strip():
            raise ValueError(f"a trigger type needs an id, not {type_id!r}")
        for name in formats:
            if isinstance(fields[name], type):
                try:
                    fields[name] = format_from_hint(fields[name])
                except UnresolvedAnnotation as error:
                    raise TypeError(f"the {name} of the trigger type {type_id}: {error}") from None
        self._receiver.providers[type_id] = handler
        fields["description"] = fields["description"] or ""
        self._send_registration({"type": "registertriggertype", **fields})
        return TriggerTypeRef(type_id, lambda: self.unregister_trigger_type({"id": type_id}), self)

    def unregister_trigger_type(self, trigger_type: TriggerTypeInput | RegisterTriggerTypeInput) -> None:
        """Withdraw the type with the `id` of `trigger_type`; its bindings wait for another provider."""
        type_id = fields_of(trigger_type, "id")["id"]
        if self._receiver.providers.pop(type_id, None) is not None:
            self._withdraw("registertriggertype", {"type": "unregistertriggertype", "id": type_id})

    def register_trigger_action(
        self,
        action_id: str,
        handler: Callable[..., Any],
        *,
        description: str | None = None,
        options_format: dict[str, Any] | None = None,
        request_format: dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> FunctionRef:
        """Provide the trigger action `action_id`, which callers name by `TriggerAction.of(action_id, ...)`.

        The handler gets `{"function_id", "data", "action", "metadata", "messageReceiptId", ...}` and decides when
        and how the function is called; what it returns is the caller's result. `options_format` is the JSON Schema of
        the action's options, `request_format` and `response_format` are those of all that the handler gets and returns.
        """
        function = self.register_function(
            f"action::{action_id}",
            handler,
            description=description,
            request_format=request_format,
            response_format=response_format,
        )
        details = {"function_id": function.id, "description": description, "options_format": options_format}
        self._send_registration({"type": "registeraction", "id": action_id, **details})

        def unregister() -> None:
            self._withdraw("registeraction", {"type": "unregisteraction", "id": action_id})
            function.unregister()

        return FunctionRef(function.id, unregister)

    def observe(
        self,
        source: ObserveSource,
        target: str | Mapping[str, Any],
        options: ObserverOptions | None = None,
    ) -> ObserverHandle:
        """Have the function `target` called for calls of the function `source["function_id"]`; return the observer.

        `target` is a function's id, or `{"function_id", "namespace"}`. By default every call that ends with success is
        shown, and the target gets an envelope with its input, output and caller. Returns at once: `ready()` of the
        observer waits until it is active. ValueError without a function id, or for an `id` in use.

            worker.observe({"function_id": "shop::pay", "filters": {"input.amount": {"$gte": 500}}}, "alerts::large")
        """
        from iii.worker.api.observers import ObserverHandle, observe_message  # few observe

        message = observe_message(source, target, options, self._namespace)
        observers = self._receiver.observers
        if message["id"] in observers:
            raise ValueError(f"observer {message['id']} exists already in this worker")

        def withdraw(observer: ObserverHandle) -> None:
            if observers.pop(observer.id, None) is not None:
                self._withdraw("observe", {"type": "unobserve", "id": observer.id})

        def forget(observer: ObserverHandle) -> None:
            observers.pop(observer.id, None)
            self._registrations.pop(("observe", observer.id), None)

        watch, run = self._dispatcher.watch, self._receiver.run_in_order
        observer = ObserverHandle(message["id"], watch=watch, run=run, forget=forget, withdraw=withdraw)
        observers[observer.id] = observer
        self._send_registration(message)
        if self._receiver.identity:
            observer.meet(self._receiver.identity)
        return observer

    def _send_registration(self, fields: Message) -> None:
        """Send a registration, without the fields that are None, and keep it for the next connection."""
        if self._runner.is_forked and self._receiver.rejection is not None:
            raise self._receiver.rejection
        message = {key: value for key, value in fields.items() if value is not None}
        self._readiness.touch()
        self._registrations[message["type"], message["id"]] = message
        self._send(message)

    def _withdraw(self, message_type: str, withdrawal: Message) -> None:
        self._registrations.pop((message_type, withdrawal["id"]), None)
        self._send(withdrawal)


def _how(first: dict[str, Any] | None, second: dict[str, Any] | None) -> str:
    """Say how a function came to be registered twice, as far as that shows."""
    if first is None:
        return ""
    place = f"{first['file']}:{first['line']}"
    if first != second:
        return f", at {place}"
    importer = _second_import()
    if importer is None:
        return f": {place} has run twice"
    name, where = importer
    return (
        f": {first['file']} runs as __main__, and {where} has imported it a second time as the module {name}; "
        "put what both need into a module of its own"
    )


def _second_import() -> tuple[str, str] | None:
    """Return the name under which the running script is just being imported, and the `FILE:LINE` that imports it."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    frame, name = sys._getframe(1), None
    while frame is not None:
        code, module = frame.f_code, frame.f_globals.get("__name__")
        if name is None and code.co_name == "<module>" and module != "__main__" and code.co_filename == script:
            name = str(module)
        elif name is not None and not code.co_filename.startswith("<frozen importlib"):
            return name, f"{code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # None behind the outermost
    return None


def announcement_from(options: InitOptions, namespace: str | None) -> Message:
    """Return the void call of `engine::workers::register` that is a worker's first line."""
    system = os.uname()
    data: dict[str, Any] = {
        "runtime": "python",
        "version": VERSION,
        "name": options.worker_name or os.environ.get("III_WORKER_NAME") or f"{system.nodename}:{os.getpid()}",
        "os": f"{system.sysname} {system.release} ({system.machine})",
        "pid": os.getpid(),
        "isolation": None,
        "namespace": namespace,
        "python": sys.version.partition(" ")[0],
    }
    if options.worker_description:
        data["description"] = options.worker_description
    if options.telemetry is not None:
        data["telemetry"] = {key: value for key, value in vars(options.telemetry).items() if value}
    return {"type": "invokefunction", "function_id": REGISTER, "action": {"type": "void"}, "data": data}
