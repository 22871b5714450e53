"""What each incoming message means: the worker's half of the protocol.

The thread or loop that reads the wire hands each message over, and is never blocked here: the dispatcher runs sync
handlers, the event loop runs async ones, and a provider hears of its bindings on a thread of the pool. Every call
passes through `sort` and `find_inline`.
"""

from __future__ import annotations

from threading import Event

from iii.errors import ErrorCode, InvocationError, RegistrationRejectedError
from iii.worker.api.triggers import answer_from, config_from_message
from iii.worker.codec.text import text_of, warn
from iii.worker.functions.signature import is_coroutine_function
from iii.worker.runtime.threads import SerialExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections import deque
    from collections.abc import Callable
    from typing import Any

    from iii.errors import IIIError, RemoteProtocolError
    from iii.worker.api.observers import ObserverHandle
    from iii.worker.calls.call_table import CallTable
    from iii.worker.codec.codec import Message
    from iii.worker.functions.handler import Handler
    from iii.worker.runtime.runner import Runner
    from iii.worker.runtime.threads import LoopThread, ThreadPool

REJECTED_FUNCTION = "FUNCTION_NAMESPACE_CONFLICT"


class Receiver:
    """Acts on messages, and holds what they look up and change: functions, providers, the worker's id, its rejection.

    `on_stop(seconds)` is called when the engine asks the worker to stop, `on_rejected()` when it refuses the worker
    for good.
    """

    def __init__(
        self,
        runner: Runner,
        calls: CallTable,
        loop: LoopThread,
        thread_pool: ThreadPool,
        send: Callable[[Message], None],
        on_stop: Callable[[float], None],
        on_rejected: Callable[[], None],
    ) -> None:
        self._runner = runner
        self._calls = calls
        self._loop = loop
        self._send = send
        self._on_rejected = on_rejected
        self._binding_tasks = SerialExecutor(thread_pool)
        self.functions: dict[str, Handler] = {}
        self.providers: dict[str, Any] = {}
        self.observers: dict[str, ObserverHandle] = {}
        self.identified = Event()
        self.identity: Message = {}
        # Why every call fails: the engine has refused this worker for good, or this process has no connection.
        self.rejection: IIIError | None = None
        self._by_type: dict[str, Callable[[Message], object]] = {
            "invokefunction": self._invoke,
            "invocationresult": calls.settle,
            "invocationitem": calls.add_item,
            "itemstaken": runner.count_taken,
            "cancel": lambda message: runner.cancel(str(message.get("invocation_id"))),
            "stop": lambda message: on_stop((message.get("deadline_ms") or 0) / 1000),
            "ping": lambda _: send({"type": "pong"}),
            "registertrigger": self._bind,
            "unregistertrigger": self._unbind,
            "workerregistered": self._identify,
            "registrationrejected": self._reject,
            "triggerregistrationresult": _warn_of_error,
            "observeresult": lambda message: self._observe(message, message.get("error")),
            "observerstatechanged": lambda message: self._observe(message, message.get("reason")),
            "error": _warn_of_error,
        }

    def sort(
        self, messages: list[Message | RemoteProtocolError], inbox: deque[Any], here: AbstractEventLoop | None
    ) -> int:
        """Give answers to their callers, and put all other messages into `inbox`. `here` is the loop that read them.

        Returns the thread that waited for the last answer if no call is outstanding any more, else 0.
        """
        if not self._calls:
            inbox.extend(messages)
            return 0
        waiting_thread = 0
        for message in messages:
            message_type = message.get("type") if message.__class__ is dict else None
            if message_type == "invocationresult":
                waiting_thread = self._calls.settle(message)  # type: ignore[arg-type]  # only dicts have a type
            elif message_type == "invocationitem":
                # Now, not in its turn: it must not come after the result.
                self._calls.add_item(message)  # type: ignore[arg-type]
            else:
                inbox.append(message)
        self._calls.wake(here)
        return waiting_thread

    def find_inline(self, message: Message) -> Handler | None:
        """Return the sync handler of an `invokefunction`, None for a message that `receive` shall have."""
        try:
            handler = self.functions[message["function_id"]] if message["type"] == "invokefunction" else None
        except (KeyError, TypeError):
            return None
        return None if handler is None or handler.is_async else handler

    def refuse(self, message: Message) -> None:
        """Answer an `invokefunction` that the worker has no thread left for it."""
        text = f"all threads of this worker are busy; {message['function_id']} was not started"
        body = {"code": ErrorCode.OVERLOADED, "message": text, "retryable": True}
        self._runner.answer_error(message, body)

    def receive(self, message: Message | RemoteProtocolError) -> None:
        """Act on a message, or on the error of a refused line; unknown types are ignored. Must not block."""
        if isinstance(message, dict):
            act = self._by_type.get(str(message.get("type")))
            if act is not None:
                try:
                    act(message)
                except (TypeError, ValueError, KeyError, AttributeError) as error:
                    # A field of another type than the protocol's: it costs this message, not the thread that reads.
                    warn(f"a {message['type']} message from the engine was ignored: {type(error).__name__}: {error}")
            return
        warn(f"a line from the engine was refused: {message.message}")
        if message.invocation_id is None:
            return
        answer = {"invocation_id": message.invocation_id, "function_id": ""}
        body = {"code": message.code, "message": message.message, "details": {"offset": message.offset}}
        if self._calls.has(message.invocation_id):
            self._calls.settle(answer | {"error": body})
            self._calls.wake()
        else:
            self._runner.answer_error(answer, body)

    def _invoke(self, message: Message) -> None:
        function_id = message.get("function_id")
        handler = self.functions.get(function_id) if isinstance(function_id, str) else None
        if handler is None:
            text = f"Function '{function_id}' not found"
            self._runner.answer_error(message, {"code": ErrorCode.FUNCTION_NOT_FOUND, "message": text})
        else:
            self._runner.submit(handler, message)

    def _observe(self, message: Message, reason: Any) -> None:
        """An observer's state has changed. The engine forgets an observer that is disposed of, and so does the SDK."""
        observer = self.observers.get(str(message.get("id")))
        if observer is not None:
            for text in message.get("warnings") or ():
                warn(f"observer {observer.id}: {text}")
            if message.get("state") == "disposed":
                observer.forget(observer)
            observer.change(str(message.get("state")), reason)

    def run_in_order(self, act: Callable[[], None]) -> None:
        """Run this on a thread of the pool, after all that came before."""
        self._binding_tasks.add(act)

    def _identify(self, message: Message) -> None:
        self.identity = message
        self.identified.set()
        for observer in list(self.observers.values()):
            observer.meet(message)

    def _reject(self, message: Message) -> None:
        code = str(message.get("code"))
        error = RegistrationRejectedError(
            str(message.get("reason") or code),
            str(message.get("namespace")),
            message.get("worker_name") or message.get("function_id"),
            str(message.get("owner_worker_id") or ""),
            message.get("message"),
        )
        warn(str(error))
        if code != REJECTED_FUNCTION:
            self.rejection = error
            self._calls.end(InvocationError(code, str(error).removeprefix(f"{error.code}: ")))
            self._on_rejected()

    def _bind(self, message: Message) -> None:
        provider = self.providers.get(str(message.get("trigger_type")))
        if provider is None:
            text = f"this worker does not provide the trigger type {message.get('trigger_type')}"
            self._send(answer_from(message, InvocationError(ErrorCode.TRIGGER_TYPE_NOT_FOUND, text)))
        elif (error := _wrong_arguments(message)) is not None:
            self._send(answer_from(message, error))
        else:
            self._notify(provider.register_trigger, message, lambda error: self._send(answer_from(message, error)))

    def _unbind(self, message: Message) -> None:
        def warn_of(error: BaseException | None) -> None:
            if error is not None:
                warn(f"unregister_trigger raised {type(error).__name__}: {text_of(error)}")

        provider = self.providers.get(str(message.get("trigger_type")))
        if provider is not None:
            self._notify(provider.unregister_trigger, message, warn_of)

    def _notify(self, method: Any, message: Message, answer: Callable[[BaseException | None], None]) -> None:
        """Call a provider's method with the binding of `message`, then `answer` with what it raised or None.

        A provider hears of its bindings in the order of the wire, however long it takes with each.
        """
        config = config_from_message(message)

        def attempt() -> None:
            try:
                method(config)
            except BaseException as error:  # noqa: BLE001 - the boundary to a provider's code
                answer(error)
            else:
                answer(None)

        async def attempt_async() -> None:
            try:
                await method(config)
            except BaseException as error:  # noqa: BLE001 - the boundary to a provider's code
                answer(error)
            else:
                answer(None)

        if is_coroutine_function(method):
            self._loop.submit(attempt_async)
        elif not self._binding_tasks.add(attempt):
            answer(InvocationError(ErrorCode.OVERLOADED, "all threads of the provider are busy"))


def _wrong_arguments(message: Message) -> ValueError | None:
    """Return what is wrong with what a binding says of arguments, which mean the same for every trigger type."""
    config = message.get("config")
    if not isinstance(config, dict) or not config.keys() & {"payload", "arguments"}:
        return None
    from iii.arguments import check_config  # few workers provide a trigger type

    try:
        check_config(config, str(message.get("trigger_type")))
    except ValueError as error:
        return error
    return None


def _warn_of_error(message: Message) -> None:
    """Show the error of a message, if it has one: of a refused trigger, or the engine's own."""
    error = message.get("error") or {}
    text = f"{error.get('code')}: {error.get('message')}"
    if message["type"] == "error":
        warn(text)
    elif error:
        warn(f"the {message.get('trigger_type')} trigger of {message.get('function_id')} was refused: {text}")
