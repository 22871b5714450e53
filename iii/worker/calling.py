"""How a worker calls functions: `trigger`, `stream`, their async forms, and `fire` for providers of trigger types.

The calling half of `Worker`. A call is a message to the engine and an entry in the call table; a thread waits for its
result in the dispatcher, a coroutine on its own loop.
"""

from __future__ import annotations

import sys
from threading import get_ident

from iii.errors import ErrorCode, InvocationError, LocalProtocolError
from iii.worker.api.requests import request_from
from iii.worker.calls.call_table import AwaitedCall, AwaitedStream, BlockingCall, StreamedCall, prepare
from iii.worker.codec.limits import MAX_LINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Any, TypeVar, overload

    from iii.worker.api.options import InitOptions
    from iii.worker.api.requests import RequestFields, RequestInput, TriggerRequestInput
    from iii.worker.api.triggers import TriggerConfig
    from iii.worker.calls.call_table import Call, CallTable
    from iii.worker.codec.codec import Codec, Message
    from iii.worker.runtime.dispatcher import Dispatcher
    from iii.worker.runtime.flow_control import TakenItems
    from iii.worker.runtime.lines import LineWriter
    from iii.worker.runtime.reader_lock import ReaderLock
    from iii.worker.runtime.receiver import Receiver
    from iii.worker.runtime.threads import LoopThread

    C = TypeVar("C", bound=Call)


class Calling:
    """Calls functions through the engine. Mixed into `Worker`, which has the attributes declared here."""

    _options: InitOptions
    _namespace: str | None
    _codec: Codec
    _writer: LineWriter
    _calls: CallTable
    _loop: LoopThread
    _receiver: Receiver
    _reader_lock: ReaderLock
    _dispatcher: Dispatcher
    _countdown: int
    _send: Callable[[Message], None]
    _note_use: Callable[[], None]
    _registrations: dict[tuple[str, str], Message]
    _defined_queues: set[str]

    if TYPE_CHECKING:

        @overload
        def trigger(self, request: str, payload: Any = None) -> Any: ...
        @overload
        def trigger(self, request: TriggerRequestInput | RequestFields) -> Any: ...

    def trigger(self, request: RequestInput, payload: Any = None) -> Any:
        """Call a function and return its result, a JSON value.

        `request` is a function id, followed by the payload; or a dict or `TriggerRequest` with `function_id` and, if
        wanted, `payload`, `action`, `timeout_ms` (milliseconds), `metadata` (any JSON value beside the payload) and
        `namespace`. Returns None at once for `TriggerAction.Void()`, the `EnqueueResult` for `Enqueue`.

        InvocationError for every failure: the handler's own code, or one of `ErrorCode` such as `function_not_found`,
        `invalid_payload`, `TIMEOUT`. ValueError or TypeError for a request that is none. RuntimeError on the SDK's
        event loop, which the call would block: async handlers await `trigger_async`.

            worker.trigger("math::add", {"a": 2, "b": 3})
            worker.trigger({"function_id": "math::add", "payload": {"a": 2, "b": 3}, "timeout_ms": 500})
        """
        if self._loop.is_current():
            raise RuntimeError("trigger would block the event loop of all async handlers; await trigger_async")
        head, data = self._prepare(request, payload)
        if "invocation_id" not in head:
            self._send({**head, "data": data})
            return None
        call = self._calls.add(BlockingCall(head))
        self._writer.add(self._encode_call(call, data))
        if not self._dispatcher.wait(call, call.answer_timeout):
            self._give_up(call)
            raise call.timeout_error()
        try:
            return call.result()
        except InvocationError as error:
            self.trigger(self._definition_after(error, head))
        return self.trigger(request, payload)  # type: ignore[arg-type]  # of either overload

    if TYPE_CHECKING:

        @overload
        async def trigger_async(self, request: str, payload: Any = None) -> Any: ...
        @overload
        async def trigger_async(self, request: TriggerRequestInput | RequestFields) -> Any: ...

    async def trigger_async(self, request: RequestInput, payload: Any = None) -> Any:
        """Call a function and await its result, on any event loop; arguments and errors as in `trigger`.

        A cancelled `await` cancels the call.
        """
        head, data = self._prepare(request, payload)
        if "invocation_id" not in head:
            self._send({**head, "data": data})
            return None
        # A running loop has loaded asyncio; an import statement here would cost 40 ns more.
        loop: AbstractEventLoop = sys.modules["asyncio"].get_running_loop()
        call = self._calls.add(AwaitedCall(head, loop, self._calls.settled))
        self._writer.add(self._encode_call(call, data))
        self._writer.flush_soon(loop)
        self._reader_lock.offer_loop(loop, get_ident())
        self._dispatcher.watch()
        timer = None
        if "deadline_ms" in head and (answer_timeout := call.answer_timeout) is not None:
            # A timer of the loop: `asyncio.wait_for` would cost more than the rest of the call.
            timer = loop.call_later(answer_timeout, call.wake_up)
        try:
            await call.future
        finally:
            if timer is not None:
                timer.cancel()
            if call.answer is None:
                self._give_up(call)
        if call.answer is None:
            raise call.timeout_error()
        try:
            return call.result()
        except InvocationError as error:
            await self.trigger_async(self._definition_after(error, head))
        return await self.trigger_async(request, payload)  # type: ignore[arg-type]  # of either overload

    def stream(
        self,
        request: RequestInput,
        payload: Any = None,
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        on_result: Callable[[Any], None] | None = None,
    ) -> Iterator[Any]:
        """Call a function whose handler is a generator, and yield its items as they come.

        Any other function yields its one result, which goes to `on_result` instead if that is given. `on_progress` gets
        `{"done", "total"?, "message"?}` for every report of the handler. Leaving the loop early cancels the call. The
        generator waits when the loop is slow. Arguments and errors as in `trigger`; ValueError for a void call.

            for line in worker.stream("report::lines", {"day": "2026-01-31"}):
                print(line)
        """
        from queue import SimpleQueue  # few workers stream

        messages: SimpleQueue[Message] = SimpleQueue()
        call, taken = self._begin_stream(request, payload, lambda head: StreamedCall(head, messages.put))
        self._writer.flush()
        self._dispatcher.watch()
        try:
            while (message := messages.get())["type"] != "invocationresult":
                for item in _items_of(message, on_progress):
                    yield item
                    taken.add()
                if messages.empty():
                    taken.report()
            if (result := call.result()) is not None:  # a generator's is None
                if on_result is None:
                    yield result
                else:
                    on_result(result)
        finally:
            if not call.is_settled:
                self._give_up(call)

    async def stream_async(
        self,
        request: RequestInput,
        payload: Any = None,
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        on_result: Callable[[Any], None] | None = None,
    ) -> AsyncIterator[Any]:
        """As `stream`, for `async for`."""
        loop: AbstractEventLoop = sys.modules["asyncio"].get_running_loop()
        call, taken = self._begin_stream(request, payload, lambda head: AwaitedStream(head, loop, self._calls.settled))
        self._writer.flush_soon(loop)
        self._reader_lock.offer_loop(loop, get_ident())
        self._dispatcher.watch()
        try:
            while (message := await call.next_item()) is not None:
                for item in _items_of(message, on_progress):
                    yield item
                    taken.add()
                if not call.items:
                    taken.report()
            if (result := call.result()) is not None:
                if on_result is None:
                    yield result
                else:
                    on_result(result)
        finally:
            if not call.is_settled:
                self._give_up(call)

    def _begin_stream(self, request: RequestInput, payload: Any, make: Callable[[Message], C]) -> tuple[C, TakenItems]:
        from iii.worker.runtime.flow_control import WINDOW_ITEMS, TakenItems  # few workers stream

        head, payload = self._prepare(request, payload, window=WINDOW_ITEMS)
        if "invocation_id" not in head:
            raise ValueError("a void call has no items to stream")
        call = self._calls.add(make(head))
        self._writer.add(self._encode_call(call, payload))
        return call, TakenItems(call.id, self._send)

    call = trigger
    call_async = trigger_async

    def _prepare(self, request: RequestInput, payload: Any, *, window: int | None = None) -> tuple[Message, Any]:
        """Return the message of a request without its payload, and the payload."""
        if self._receiver.rejection is not None:
            raise self._receiver.rejection
        if self._countdown > 0:
            self._note_use()
        typed_request = request_from(request, payload)
        head = prepare(typed_request, self._namespace, self._options.invocation_timeout_ms, window=window)
        return head, typed_request.payload

    def _encode_call(self, call: Call, payload: Any) -> bytes:
        try:
            line = self._codec.encode_call(call.head, payload)
        except LocalProtocolError as error:
            self._calls.drop(call)
            text = f"the payload of {call.function_id} is not JSON: {error.message}"
            path, _, fault = error.message.partition(": ")
            details = {"path": path, "expected": fault}
            raise InvocationError(ErrorCode.INVALID_PAYLOAD, text, call.function_id, details=details) from None
        if len(line) >= MAX_LINE:
            self._calls.drop(call)
            text = f"the call of {call.function_id} has {len(line)} bytes, over the limit of {MAX_LINE}"
            raise InvocationError(ErrorCode.PAYLOAD_TOO_LARGE, text, call.function_id)
        return line

    def _definition_after(self, error: InvocationError, head: Message) -> TriggerRequestInput:
        """Return the call that makes the queue for want of which an enqueue has failed; any other error is raised.

        The queue worker hears of this worker's declarations when it is ready, and a script may enqueue before.
        """
        if "action" in head and error.details.get("reason") == "queue_not_found":
            name = head["action"].get("queue")
            for message in self._registrations.values() if name not in self._defined_queues else ():
                config = dict(message.get("config") or {})
                if message.get("trigger_type") == "queue" and config.pop("queue", None) == name:
                    self._defined_queues.add(name)
                    return {"function_id": "queue::define", "payload": {"queue": name, "config": config}}
        raise error

    def _give_up(self, call: Call) -> None:
        self._calls.drop(call)
        self._send({"type": "cancel", "invocation_id": call.id})

    def fire(self, binding: TriggerConfig, event: Any = None) -> Any:
        """Call the function of a binding with its metadata; return its result, None when its condition stopped it.

        The function gets the event, or the arguments that its binding's config takes out of it. The condition
        (`condition_function_id` in the config) gets the event; only a literal false stops it. InvocationError of
        either call, and `invalid_payload` for an event that lacks an argument.
        """
        condition = binding.condition(event)
        if condition is not None and self.trigger(condition) is False:
            return None
        return self.trigger(binding.request(event))

    async def fire_async(self, binding: TriggerConfig, event: Any = None) -> Any:
        """As `fire`, without blocking the event loop."""
        condition = binding.condition(event)
        if condition is not None and await self.trigger_async(condition) is False:
            return None
        return await self.trigger_async(binding.request(event))


def _items_of(message: Message, on_progress: Callable[[dict[str, Any]], None] | None) -> Iterator[Any]:
    if "item" in message:
        yield message["item"]
    if message.get("progress") is not None and on_progress is not None:
        on_progress(message["progress"])
