"""What each incoming message means: the worker's half of the protocol.

Called by the dispatcher's leader only; never blocks. Sync handlers are found here and run by the dispatcher, all
that may take time goes to the event loop or to a spare thread.

MERGED: Tasks that must run one after the other, on whatever thread is free.

A provider hears of its bindings in the order of the wire, however long it takes with each. Used by the receiver.
"""

from __future__ import annotations

from collections import deque
from threading import Event, Lock

from iii.errors import ErrorCode, InvocationError, RegistrationRejectedError
from iii.worker.api.triggers import answer_from, config_from_message
from iii.worker.functions.signature import is_coroutine_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections import deque
    from collections.abc import Callable
    from typing import Any

    from iii.errors import RemoteProtocolError
    from iii.worker.calls.call_table import CallTable
    from iii.worker.codec.codec import Message
    from iii.worker.functions.handler import Handler
    from iii.worker.runtime.event_loop import LoopThread
    from iii.worker.runtime.runner import Runner

REJECTED_FUNCTION = "FUNCTION_NAMESPACE_CONFLICT"


class WorkerReceiver:
    """State that messages change: functions, providers, the worker's id, its connection state."""

    def __init__(self, runner: Runner, calls: CallTable, loop: LoopThread, send: Callable[[Message], None]) -> None:
        self._runner = runner
        self._calls = calls
        self.run = runner.run
        self._loop = loop
        self._send = send
        self.functions: dict[str, Handler] = {}
        self.providers: dict[str, Any] = {}
        self.identified = Event()
        self.identity: Message = {}
        self.rejection: RegistrationRejectedError | None = None
        self.on_end: Callable[[], None] = lambda: None
        self.on_rejected: Callable[[], None] = lambda: None
        self.on_stop: Callable[[float], None] = lambda _: None
        self.run_elsewhere: Callable[[Callable[[], None]], bool] = lambda _: False
        self._lane = SerialExecutor(self._run_elsewhere)
        self.warn: Callable[[str], None] = lambda _: None
        self._by_type: dict[str, Callable[[Message], object]] = {
            "invokefunction": self._invoke,
            "invocationresult": self._calls.settle,
            "invocationitem": self._calls.add_item,
            "itemstaken": self._note_taken,
            "cancel": self._cancel,
            "stop": self._stop,
            "ping": self._ping,
            "registertrigger": self._bind,
            "unregistertrigger": self._unbind,
            "workerregistered": self._identify,
            "registrationrejected": self._reject,
            "triggerregistrationresult": self._note_refusal,
            "error": self._note_error,
        }

    # The hot path

    def sort(
        self, messages: list[Message | RemoteProtocolError], inbox: deque[Any], here: AbstractEventLoop | None
    ) -> int:
        """Give answers to their callers, and put the rest into `inbox`. `here` is the loop that has read them.

        Returns the thread that waited for the last answer if nobody waits any more, else 0.
        """
        if not self._calls:
            inbox.extend(messages)
            return 0
        waiter = 0
        for message in messages:
            kind = message.get("type") if message.__class__ is dict else None
            if kind == "invocationresult":
                waiter = self._calls.settle(message)  # type: ignore[arg-type]  # only dicts have a kind
            elif kind == "invocationitem":
                # Now, not in its turn: it must not come after the result.
                self._calls.add_item(message)  # type: ignore[arg-type]
            else:
                inbox.append(message)
        self._calls.wake(here)
        return waiter

    def find_inline(self, message: Message) -> Handler | None:
        """Return the sync handler of an `invokefunction`."""
        try:
            handler = self.functions[message["function_id"]] if message["type"] == "invokefunction" else None
        except (KeyError, TypeError):
            return None
        return None if handler is None or handler.is_async else handler

    def refuse(self, message: Message) -> None:
        """Answer that the worker has no thread left."""
        text = f"all threads of this worker are busy; {message['function_id']} was not started"
        body = {"code": ErrorCode.OVERLOADED, "message": text, "retryable": True}
        self._runner.answer_error(message, body)

    # Everything else

    def receive(self, message: Message | RemoteProtocolError) -> None:
        """Act on a message; unknown types are ignored."""
        if not isinstance(message, dict):
            self._answer_refused_line(message)
            return
        act = self._by_type.get(str(message.get("type")))
        if act is not None:
            act(message)

    def _answer_refused_line(self, error: RemoteProtocolError) -> None:
        self.warn(f"a line from the engine was refused: {error.message}")
        if error.invocation_id is None:
            return
        message = {"invocation_id": error.invocation_id, "function_id": ""}
        body = {"code": error.code, "message": error.message, "details": {"offset": error.offset}}
        if self._calls.has(error.invocation_id):
            self._calls.settle(message | {"error": body})
            self._calls.wake()
        else:
            self._runner.answer_error(message, body)

    def _invoke(self, message: Message) -> None:
        function_id = message.get("function_id")
        handler = self.functions.get(function_id) if isinstance(function_id, str) else None
        if handler is None:
            text = f"Function '{function_id}' not found"
            self._runner.answer_error(message, {"code": ErrorCode.FUNCTION_NOT_FOUND, "message": text})
        else:
            self._runner.submit(handler, message)

    def _cancel(self, message: Message) -> None:
        self._runner.cancel(str(message.get("invocation_id")))

    def _note_taken(self, message: Message) -> None:
        self._runner.note_taken(str(message.get("invocation_id")), int(message.get("count") or 0))

    def _stop(self, message: Message) -> None:
        self.on_stop((message.get("deadline_ms") or 0) / 1000)

    def _ping(self, _: Message) -> None:
        self._send({"type": "pong"})

    def _identify(self, message: Message) -> None:
        self.identity = message
        self.identified.set()

    def _reject(self, message: Message) -> None:
        code = str(message.get("code"))
        error = RegistrationRejectedError(
            str(message.get("reason") or code),
            str(message.get("namespace")),
            message.get("worker_name") or message.get("function_id"),
            str(message.get("owner_worker_id") or ""),
            message.get("message"),
        )
        self.warn(str(error))
        if code != REJECTED_FUNCTION:
            self.rejection = error
            self._calls.end(InvocationError(code, str(error)))
            self.on_rejected()

    def _note_refusal(self, message: Message) -> None:
        error = message.get("error") or {}
        if error:
            text = f"{error.get('code')}: {error.get('message')}"
            self.warn(f"the {message.get('trigger_type')} trigger of {message.get('function_id')} was refused: {text}")

    def _note_error(self, message: Message) -> None:
        error = message.get("error") or {}
        self.warn(f"{error.get('code')}: {error.get('message')}")

    # Providing a trigger type

    def _bind(self, message: Message) -> None:
        provider = self.providers.get(str(message.get("trigger_type")))
        if provider is None:
            text = f"this worker does not provide the trigger type {message.get('trigger_type')}"
            self._send(answer_from(message, InvocationError(ErrorCode.TRIGGER_TYPE_NOT_FOUND, text)))
        else:
            self._tell(provider.register_trigger, message, lambda error: self._send(answer_from(message, error)))

    def _unbind(self, message: Message) -> None:
        provider = self.providers.get(str(message.get("trigger_type")))
        if provider is not None:
            self._tell(provider.unregister_trigger, message, self._warn_of)

    def _run_elsewhere(self, task: Callable[[], None]) -> bool:
        return self.run_elsewhere(task)

    def _warn_of(self, error: BaseException | None) -> None:
        if error is not None:
            self.warn(f"unregister_trigger raised {type(error).__name__}: {error}")

    def _tell(self, method: Any, message: Message, answer: Callable[[BaseException | None], None]) -> None:
        config = config_from_message(message)
        if is_coroutine_function(method):
            self._loop.submit(lambda: _attempt_async(method, config, answer))
        elif not self._lane.add(lambda: _attempt(method, config, answer)):
            answer(InvocationError(ErrorCode.OVERLOADED, "all threads of the provider are busy"))

    def ended(self) -> None:
        """The wire is gone: fail what waits, tell the worker."""
        self._calls.end(InvocationError(ErrorCode.SHUTDOWN, "the connection to the engine has ended"))
        self.identified.set()
        self.on_end()


def _attempt(method: Any, config: Any, answer: Callable[[BaseException | None], None]) -> None:
    try:
        method(config)
    except Exception as error:  # noqa: BLE001 - the boundary to a provider's code
        answer(error)
    else:
        answer(None)


async def _attempt_async(method: Any, config: Any, answer: Callable[[BaseException | None], None]) -> None:
    try:
        await method(config)
    except Exception as error:  # noqa: BLE001 - the boundary to a provider's code
        answer(error)
    else:
        answer(None)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class SerialExecutor:
    """`add` tasks from one thread; they run in that order, never two at a time."""

    def __init__(self, run_elsewhere: Callable[[Callable[[], None]], bool]) -> None:
        self._run_elsewhere = run_elsewhere
        self._tasks: deque[Callable[[], None]] = deque()
        self._changing = Lock()
        self._is_busy = False

    def add(self, task: Callable[[], None]) -> bool:
        """Run `task` after those before it; False when no thread is left to begin with it."""
        with self._changing:
            self._tasks.append(task)
            if self._is_busy:
                return True
            self._is_busy = True
        if self._run_elsewhere(self._drain):
            return True
        self._tasks.clear()
        self._is_busy = False
        return False

    def _drain(self) -> None:
        while True:
            with self._changing:
                if not self._tasks:
                    self._is_busy = False
                    return
                task = self._tasks.popleft()
            task()
