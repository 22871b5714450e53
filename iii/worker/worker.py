"""`Worker`: what a script holds after `register_worker()` of `connect.py`.

Registers functions, triggers, trigger types and actions, and calls functions of others. Messages are sent as they
are made. What comes in is the receiver's, threads are the dispatcher's; this file joins them.
"""

from __future__ import annotations

import os
import sys

from iii.errors import ErrorCode, InvocationError, LocalProtocolError
from iii.worker.calls import CallTable, prepare
from iii.worker.crew import Crew
from iii.worker.dispatch import Dispatcher
from iii.worker.handlers import describe, handler_from, source_of, typed_handler_from
from iii.worker.ids import mint_id
from iii.worker.intake import Intake
from iii.worker.invocation import InvocationContext, current_invocation
from iii.worker.json_codec import Codec
from iii.worker.lifeline import Lifeline
from iii.worker.limits import MAX_LINE
from iii.worker.loop import LoopThread
from iii.worker.options import InitOptions
from iii.worker.outbox import Outbox
from iii.worker.readiness import Readiness
from iii.worker.receiver import WorkerReceiver
from iii.worker.registration import announcement_from, function_message, trigger_message
from iii.worker.requests import request_from
from iii.worker.runner import Runner
from iii.worker.triggers import FunctionRef, Trigger, TriggerHandler, TriggerTypeRef

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from iii.worker.calls import AwaitedCall, Call
    from iii.worker.json_codec import Message
    from iii.worker.transport import Transport

    F = TypeVar("F", bound=Callable[..., Any])

# A worker with this many invocations behind it is in use: a fast JSON library is worth its loading time.
CALLS_BEFORE_UPGRADE = 50
IDENTITY_SECONDS = 10.0


class Worker:
    """A connection to the engine, and what this process offers through it. Methods are safe on any thread."""

    def __init__(
        self, transport: Transport, options: InitOptions | None = None, *, address: str = "", crew: Crew | None = None
    ) -> None:
        self.options = options or InitOptions()
        # The default namespace is never named: absent means the same, and older engines know only that.
        namespace = self.options.namespace or os.environ.get("III_NAMESPACE")
        self._namespace = None if namespace == "default" else namespace or None
        self._transport = transport
        self._address = address
        self._codec = Codec()
        self._outbox = Outbox(transport.write)
        self._calls = CallTable()
        self._loop = LoopThread()
        self._runner = Runner(self._codec, self._outbox, self._loop)
        self._receiver = WorkerReceiver(self._runner, self._calls, self._loop, self._send)
        self._readiness = Readiness(self._send, os.environ.get("III_PROJECT", ""))
        self._crew = crew or Crew()
        self._dispatcher = Dispatcher(transport, Intake(self._codec), self._outbox, self._crew, self._receiver)
        self._lifeline = Lifeline()
        self._listeners: list[Callable[[str], None]] = []
        self._state = "connected"
        self._countdown = CALLS_BEFORE_UPGRADE
        self._join_receiver()
        self._send(announcement_from(self.options, self._namespace))

    def _join_receiver(self) -> None:
        receiver = self._receiver
        receiver.on_end = self._on_end
        receiver.on_stop = self._on_stop
        receiver.run_elsewhere = self._dispatcher.call_elsewhere
        receiver.after_run = self._after_run
        receiver.warn = _warn

    # Functions

    def register_function(  # noqa: PLR0913 - the public SDK's signature
        self,
        function_id: str,
        handler: Callable[..., Any],
        *,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        request_format: dict[str, Any] | None = None,
        response_format: dict[str, Any] | None = None,
    ) -> FunctionRef:
        """Offer `handler(payload)` as `function_id` (`service::name`).

        The handler may be sync or async, takes the decoded JSON payload and returns a JSON value; a parameter named
        `metadata` receives the sidecar. Formats and description come from hints and docstring unless given.
        ValueError for a blank or taken id, TypeError for a handler that cannot be called.
        """
        given = {
            "description": description,
            "metadata": metadata,
            "request_format": request_format,
            "response_format": response_format,
        }
        return self._register(function_id, handler, given, typed=False)

    def function(self, function_id: str, **details: Any) -> Callable[[F], F]:
        """Decorate a function with typed parameters: the payload's keys become its arguments.

        Takes the keyword arguments of `register_function`. The function itself stays as it is.
        """

        def register(handler: F) -> F:
            self._register(function_id, handler, details, typed=True)
            return handler

        return register

    def _register(
        self, function_id: str, handler: Callable[..., Any], given: dict[str, Any], *, typed: bool
    ) -> FunctionRef:
        self._check_registration(function_id, handler)
        wrap = typed_handler_from if typed else handler_from
        found = describe(handler, typed=typed)
        found.update({key: value for key, value in given.items() if value is not None})
        source = source_of(handler, os.environ.get("III_PROJECT", ""))
        self._receiver.functions[function_id] = wrap(function_id, handler)
        self._send_registration(function_message(function_id, found, source))
        return FunctionRef(function_id, lambda: self._unregister_function(function_id))

    def _check_registration(self, function_id: str, handler: Any) -> None:
        if not isinstance(function_id, str) or not function_id.strip():
            raise ValueError(f"a function id must be a service::name, not {function_id!r}")
        if not callable(handler):
            raise TypeError(f"the handler of {function_id} must be callable, not {handler!r}")
        if function_id in self._receiver.functions:
            raise ValueError(f"function {function_id} is registered already in this worker")

    def _unregister_function(self, function_id: str) -> None:
        if self._receiver.functions.pop(function_id, None) is not None:
            self._send({"type": "unregisterfunction", "id": function_id})

    # Triggers, trigger types, actions

    def register_trigger(self, trigger: dict[str, Any]) -> Trigger:
        """Bind an event to a function: `{"type", "function_id", "config", "metadata"?, "namespace"?}`.

        The provider of the type may come later. ValueError when `type` or `function_id` is missing.
        """
        message = trigger_message(trigger, mint_id(), self._namespace)
        self._send_registration(message)
        trigger_id, trigger_type = message["id"], message["trigger_type"]
        withdrawal = {"type": "unregistertrigger", "id": trigger_id, "trigger_type": trigger_type}
        return Trigger(trigger_id, lambda: self._send(withdrawal))

    def register_trigger_type(self, trigger_type: dict[str, Any], handler: TriggerHandler) -> TriggerTypeRef:
        """Provide a trigger type `{"id", "description", "trigger_request_format"?, "call_request_format"?}`."""
        type_id = trigger_type.get("id")
        if not isinstance(type_id, str) or not type_id.strip():
            raise ValueError(f"a trigger type needs an id, not {type_id!r}")
        self._receiver.providers[type_id] = handler
        fields = {key: value for key, value in trigger_type.items() if value is not None}
        self._send_registration({"description": "", **fields, "type": "registertriggertype"})
        return TriggerTypeRef(type_id, lambda: self.unregister_trigger_type({"id": type_id}))

    def unregister_trigger_type(self, trigger_type: dict[str, Any]) -> None:
        """Withdraw a type this worker provides."""
        if self._receiver.providers.pop(trigger_type["id"], None) is not None:
            self._send({"type": "unregistertriggertype", "id": trigger_type["id"]})

    def register_trigger_action(
        self,
        action_id: str,
        handler: Callable[..., Any],
        *,
        description: str | None = None,
        options_format: dict[str, Any] | None = None,
    ) -> FunctionRef:
        """Provide the trigger action `action_id`, which callers name by `TriggerAction.of(action_id, ...)`.

        The handler gets `{"function_id", "data", "action", "metadata", "messageReceiptId", ...}` and decides when
        and how the function is called; what it returns is the caller's result.
        """
        function = self.register_function(f"action::{action_id}", handler, description=description)
        fields = {"description": description, "options_format": options_format}
        known = {key: value for key, value in fields.items() if value is not None}
        self._send_registration({"type": "registeraction", "id": action_id, "function_id": function.id, **known})
        return function

    # Calls

    def trigger(self, request: Any, payload: Any = None) -> Any:
        """Call a function and return its result.

        `request` is a dict or `TriggerRequest` (`function_id`, `payload`, `action`, `timeout_ms`, `metadata`,
        `namespace`), or a function id followed by the payload. Returns None at once for `TriggerAction.Void()`, the
        `EnqueueResult` for `Enqueue`. InvocationError for every failure. RuntimeError on the SDK's event loop.
        """
        if self._loop.is_current():
            raise RuntimeError("trigger would block the event loop of all async handlers; await trigger_async")
        message = self._prepare(request, payload)
        if "invocation_id" not in message:
            self._send(message)
            return None
        call = self._calls.open(message, message.get("deadline_ms"))
        self._outbox.add(self._encode_call(message, call))
        if not self._dispatcher.wait(call, call.net):
            self._give_up(call)
            raise call.timeout_error()
        return call.result()

    async def trigger_async(self, request: Any, payload: Any = None) -> Any:
        """Call a function and await its result; arguments and errors as in `trigger`. Works on any event loop."""
        import asyncio  # noqa: PLC0415 - loaded by whoever awaits this

        message = self._prepare(request, payload)
        if "invocation_id" not in message:
            self._send(message)
            return None
        loop = asyncio.get_running_loop()
        call = self._calls.open_awaited(message, message.get("deadline_ms"), loop)
        self._outbox.add(self._encode_call(message, call))
        loop.call_soon(self._outbox.flush)
        self._dispatcher.watch()
        return await self._await(call)

    call = trigger
    call_async = trigger_async

    async def _await(self, call: AwaitedCall) -> Any:
        import asyncio  # noqa: PLC0415 - loaded already

        try:
            if call.net is None:
                await call.future
            else:
                await asyncio.wait_for(call.future, call.net)
        except TimeoutError:
            self._give_up(call)
            raise call.timeout_error() from None
        except asyncio.CancelledError:
            self._give_up(call)
            raise
        return call.result()

    def _prepare(self, request: Any, payload: Any) -> Message:
        if self._receiver.rejection is not None:
            raise self._receiver.rejection
        default = self.options.invocation_timeout_ms
        return prepare(request_from(request, payload), self._namespace, default)

    def _encode_call(self, message: Message, call: Call) -> bytes:
        try:
            line = self._codec.encode(message)
        except LocalProtocolError as error:
            self._calls.drop(call)
            text = f"the payload of {call.function_id} is not JSON: {error.message.replace('$.data', '$', 1)}"
            raise InvocationError(ErrorCode.INVALID_PAYLOAD, text, call.function_id) from None
        if len(line) >= MAX_LINE:
            self._calls.drop(call)
            text = f"the call of {call.function_id} has {len(line)} bytes, over the limit of {MAX_LINE}"
            raise InvocationError(ErrorCode.PAYLOAD_TOO_LARGE, text, call.function_id)
        return line

    def _give_up(self, call: Call) -> None:
        self._calls.drop(call)
        self._send({"type": "cancel", "invocation_id": call.id})

    # Connection and life

    @property
    def worker_id(self) -> str | None:
        """The id the engine gave this worker; waits for it."""
        self._dispatcher.watch()
        self._receiver.identified.wait(IDENTITY_SECONDS)
        return self._receiver.identity.get("worker_id")

    @property
    def config(self) -> dict[str, Any]:
        """The worker's `config` table of iii.toml, empty without one."""
        line = (os.environ.get("III_CONFIG") or "{}").encode()
        (config,) = self._codec.decode_block(line)
        return config if isinstance(config, dict) else {}

    def get_address(self) -> str:
        """Return the address of the engine, `stdio:` for a supervised worker."""
        return self._address

    def get_connection_state(self) -> str:
        """Return `connected`, `disconnected` or `failed`."""
        return "failed" if self._receiver.rejection is not None else self._state

    def add_connection_state_listener(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call `listener(state)` now and at every change; returns a function that ends that."""
        self._listeners.append(listener)
        listener(self.get_connection_state())
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def current_invocation(self) -> InvocationContext | None:
        """Return the invocation the calling code runs in, None outside a handler."""
        return current_invocation()

    def ready(self) -> None:
        """Tell the engine that all registrations are made. Happens by itself at the end of the script."""
        self._readiness.announce()

    async def connect_async(self) -> None:
        """Do nothing: a supervised worker is connected from its start. Kept for code of the public SDK."""

    def serve(self) -> None:
        """Serve on this thread until the engine closes the wire. The launcher calls it after the script."""
        self._lifeline.serving.set()
        self._readiness.announce()
        self._dispatcher.lead()
        # Another thread leads by now, or has to begin.
        self._dispatcher.watch()
        self._dispatcher.ended.wait()

    def watch(self) -> None:
        """Serve on threads of the SDK; `ready` follows when the script registers nothing more."""
        self._dispatcher.call_elsewhere(self._watch)

    def _watch(self) -> None:
        self._readiness.announce_when_quiet()
        if not self._lifeline.serving.is_set():
            self._dispatcher.watch()

    def shutdown(self) -> None:
        """End the connection: outstanding calls fail with `SHUTDOWN`."""
        self._calls.end(InvocationError(ErrorCode.SHUTDOWN, "the worker has been shut down"))
        self._outbox.flush()
        self._loop.stop()
        self._transport.close()
        self._crew.close()
        self._set_state("disconnected")

    async def shutdown_async(self) -> None:
        """As `shutdown`, without blocking the running loop."""
        import asyncio  # noqa: PLC0415 - loaded by whoever awaits this

        await asyncio.to_thread(self.shutdown)

    # What the receiver tells

    def _on_end(self) -> None:
        self._set_state("disconnected")
        if self._transport.owns_process:
            self._lifeline.leave(main_returns=self._lifeline.serving.is_set())

    def _on_stop(self, seconds: float) -> None:
        self._dispatcher.call_elsewhere(lambda: self._finish(seconds))

    def _finish(self, seconds: float) -> None:
        self._runner.drain().wait(seconds or None)
        self._outbox.flush()
        if self._transport.owns_process:
            # The main thread may be blocked in reading: it cannot be the one that leaves.
            self._lifeline.leave(main_returns=False)
        else:
            self._dispatcher.end()

    def _after_run(self) -> None:
        self._readiness.refresh()
        if self._countdown:
            self._countdown -= 1
            if not self._countdown and self._codec.library == "json":
                self._dispatcher.call_elsewhere(self._codec.upgrade)

    def _set_state(self, state: str) -> None:
        if state != self._state:
            self._state = state
            for listener in list(self._listeners):
                listener(state)

    def _send_registration(self, message: Message) -> None:
        self._readiness.touch()
        self._send(message)

    def _send(self, message: Message) -> None:
        self._outbox.add(self._codec.encode(message))
        self._outbox.flush()

    def __repr__(self) -> str:
        name = self.options.worker_name or "unnamed"
        return f"<Worker {name} {self._state}, {len(self._receiver.functions)} functions, {len(self._runner)} running>"


def _warn(text: str) -> None:
    sys.stderr.write(f"iii: {text}\n")
