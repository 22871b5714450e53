"""Runs handlers and answers their invocations; the one place where an exception of user code becomes an error body.

`run` runs a sync handler on the calling thread, `submit` an async one on the event loop. An invocation with an id gets
exactly one answer. Running invocations are kept by id, so that `cancel` finds them and `drain` sees the last one end.
"""

from __future__ import annotations

from contextvars import copy_context
from threading import Event
from types import CoroutineType, GeneratorType

from iii.errors import ErrorCode, InvocationError, LocalProtocolError
from iii.worker.calls.errors import body_from_exception
from iii.worker.codec.limits import MAX_LINE
from iii.worker.codec.text import text_of
from iii.worker.context.invocation import CURRENT, InvocationContext
from iii.worker.runtime.forked_child import end_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.worker.codec.codec import Codec, Message
    from iii.worker.functions.handler import Handler
    from iii.worker.runtime.lines import LineWriter
    from iii.worker.runtime.threads import LoopThread

_set_current = CURRENT.set
_ANSWER = b'{"type":"invocationresult","invocation_id":'
_CANCELLED = {"code": ErrorCode.CANCELLED, "message": "the caller gave up"}
# Of an error body: the handler has returned, so its effect is there; only its result could not be sent.
_RETURNED = {"returned": True}


class Runner:
    """Calls handlers and answers their invocations. `after_run()` is called behind each of them."""

    def __init__(self, codec: Codec, writer: LineWriter, loop: LoopThread, after_run: Callable[[], None]) -> None:
        self._codec = codec
        self._writer = writer
        self._loop = loop
        self._after_run = after_run
        self._running: dict[str | int, InvocationContext] = {}
        self._drained: Event | None = None
        self.is_forked = False  # this process is a child of the worker's: it answers nothing

    def __len__(self) -> int:
        return len(self._running)

    def run(self, handler: Handler, message: Message) -> None:
        """Run a sync handler on this thread and add its answer to the writer, unflushed."""
        invocation = InvocationContext(message)
        self._running[invocation.key] = invocation
        if "stream" in message:
            self._open_window(invocation)
        try:
            # In a copy of the context: the next handler on this thread must not see the variables this one sets.
            result = copy_context().run(_call_to_end, handler, invocation)
        except BaseException as error:  # noqa: BLE001 - the boundary: a handler's SystemExit ends no worker
            if self.is_forked:
                end_child(handler.function_id, error)
            self.answer_error(message, body_from_exception(error))
        else:
            if invocation.has_heard and "awaits_end" in message:
                self.answer_error(message, _CANCELLED)
            else:
                self._answer(handler, message, result)
        self._running.pop(invocation.key, None)
        self._after_run()
        if self._drained is not None and not self._running:
            self._drained.set()

    def submit(self, handler: Handler, message: Message) -> None:
        invocation = InvocationContext(message)
        self._running[invocation.key] = invocation  # now: a `cancel` may come before the loop starts the handler
        if "stream" in message:
            self._open_window(invocation)
        if self._loop.is_current():
            self._start(handler, invocation)
        else:
            self._loop.call(lambda: self._start(handler, invocation))

    def _start(self, handler: Handler, invocation: InvocationContext) -> None:
        # The invocation holds the task, because a loop holds its tasks only weakly. Not as `task` yet: `cancel` would
        # end a task that has not begun without an answer.
        invocation.unbegun = self._loop.loop.create_task(self._run_async(handler, invocation))

    async def _run_async(self, handler: Handler, invocation: InvocationContext) -> None:
        message = invocation.message
        invocation.task = invocation.unbegun
        try:
            if invocation.is_cancelled:
                raise InvocationError(ErrorCode.CANCELLED, "the caller gave up")
            _set_current(invocation)
            data = message.get("data")
            result = handler.call(data, metadata=invocation.metadata) if handler.takes_metadata else handler.call(data)
            result = await (result if result.__class__ is CoroutineType else _resolve(result, invocation))
        except BaseException as error:  # noqa: BLE001 - the boundary, as in `run`
            import asyncio  # loaded by the loop this runs on

            if self.is_forked:
                end_child(handler.function_id, error)
            # One that the handler raised itself, say by awaiting a cancelled task, is a failure like any other.
            is_cancelled = invocation.is_cancelled and isinstance(error, asyncio.CancelledError)
            self.answer_error(message, _CANCELLED if is_cancelled else body_from_exception(error))
        else:
            if invocation.has_heard and "awaits_end" in message:
                self.answer_error(message, _CANCELLED)
            else:
                self._answer(handler, message, result)
        # The task's context holds the invocation: a cycle that only the garbage collector would free.
        invocation.task = invocation.unbegun = None
        self._running.pop(invocation.key, None)
        self._after_run()
        if self._drained is not None and not self._running:
            self._drained.set()
        self._writer.flush_soon(self._loop.loop)

    def _open_window(self, invocation: InvocationContext) -> None:
        """Let the handler of a streamed invocation send items, as far as its window allows."""
        if not invocation.is_streamed:
            return
        from iii.worker.runtime.flow_control import ItemWindow  # few workers stream

        window = invocation.window = ItemWindow(invocation.message.get("window"))

        def send_item(fields: dict[str, Any]) -> None:
            message = {"type": "invocationitem", "invocation_id": invocation.invocation_id, **fields}
            line = self._codec.encode(message)
            if "item" in fields:
                window.sent(len(line))
            self._writer.add(line)
            self._writer.flush()

        invocation.send_item = send_item

    def count_taken(self, message: Message) -> None:
        """Count items that the caller of a streamed invocation has taken; its handler may send as many more."""
        invocation = self._running.get(str(message.get("invocation_id")))
        if invocation is not None and invocation.window is not None:
            invocation.window.taken(int(message.get("count") or 0))

    def end_streams(self) -> None:
        """Cancel the streamed invocations: the connection that carried their items is lost."""
        for invocation in list(self._running.values()):
            if invocation.window is not None:
                self.cancel(str(invocation.invocation_id))

    def _answer(self, handler: Handler, message: Message, result: Any) -> None:
        """Add the result of an invocation; without an id the caller wants none."""
        invocation_id = message.get("invocation_id")
        if invocation_id is None:
            return
        codec = self._codec
        try:
            # Joined from encoded parts: the encoder would take longer to walk through a dict.
            if result is None:  # a function that returns nothing has no result (public contract)
                line = b"".join((_ANSWER, codec.encode_text(invocation_id), handler.without_result))
            else:
                parts = (_ANSWER, codec.encode_text(invocation_id), handler.before_result, codec.encode(result, 1))
                line = b"".join((*parts, b"}"))
        except BaseException as error:  # noqa: BLE001 - the boundary to the methods of the result's objects
            self.answer_error(message, _body_of_unsendable(handler.function_id, error))
            return
        if len(line) >= MAX_LINE:
            text = f"the result of {len(line)} bytes is over the limit of {MAX_LINE}; use a channel"
            body = {"code": ErrorCode.PAYLOAD_TOO_LARGE, "message": text, "details": _RETURNED}
            self.answer_error(message, body)
            return
        self._writer.add(line)

    def answer_error(self, message: Message, body: dict[str, Any]) -> None:
        invocation_id = message.get("invocation_id")
        if invocation_id is None:
            return
        fields = {
            "type": "invocationresult",
            "invocation_id": invocation_id,
            "function_id": message.get("function_id"),
            "error": body,
        }
        line = b""
        try:
            line = self._codec.encode(fields)
        except BaseException:  # noqa: BLE001 - the boundary to the objects in an error's details
            line = b""
        if not line or len(line) >= MAX_LINE:
            # JSON cannot hold the error's details or message: an answer without them is better than none.
            fields["error"] = {key: ascii(body[key])[1:-1] for key in ("code", "message")}
            line = self._codec.encode(fields)
        self._writer.add(line)

    def cancel(self, invocation_id: str) -> None:
        """Cancel a running invocation: an async handler gets CancelledError, a sync one sees the flag."""
        invocation = self._running.get(invocation_id)
        if invocation is None:
            return
        invocation.is_cancelled = True
        if invocation.window is not None:
            invocation.window.end()
        if invocation.task is not None:
            self._loop.call_soon(_cancel_task, invocation)

    def drain(self) -> Event:
        """Return an event that is set once no invocation runs."""
        drained = self._drained
        if drained is None or drained.is_set():  # set: by the stop of an engine that this worker has met again
            drained = self._drained = Event()
        if not self._running:
            drained.set()
        return drained


def _cancel_task(invocation: InvocationContext) -> None:
    if invocation.task is not None and invocation.task.cancel():
        invocation.has_heard = True


def _body_of_unsendable(function_id: str, error: BaseException) -> dict[str, Any]:
    """Return the error body of a handler that has returned what JSON cannot hold."""
    if isinstance(error, LocalProtocolError):
        return {"code": error.code, "message": error.message, "details": _RETURNED}
    text = f"the result of {function_id} cannot be made JSON: {type(error).__name__}: {text_of(error)}"
    return {"code": ErrorCode.RESULT_NOT_SERIALIZABLE, "message": text, "details": _RETURNED}


def _call_to_end(handler: Handler, invocation: InvocationContext) -> Any:
    """Call a sync handler. A generator's items go to a caller that streams, or are collected for any other."""
    _set_current(invocation)
    data = invocation.message.get("data")
    result = handler.call(data, metadata=invocation.metadata) if handler.takes_metadata else handler.call(data)
    if result.__class__ is not GeneratorType:
        return result
    if not invocation.is_streamed:
        return list(result)
    for item in result:
        if invocation.is_cancelled:
            result.close()
            break
        invocation.send_item({"item": item})
        invocation.window.wait()
    return None


async def _resolve(result: Any, invocation: InvocationContext) -> Any:
    """Return the result of a handler that returned no coroutine: an async generator, or another awaitable."""
    if not hasattr(result, "__aiter__"):
        return await result
    if not invocation.is_streamed:
        return [item async for item in result]
    async for item in result:
        if invocation.is_cancelled:  # one that awaits nothing never hears of it otherwise
            if hasattr(result, "aclose"):
                await result.aclose()
            break
        invocation.send_item({"item": item})
        if invocation.window.is_full:
            await invocation.window.wait_async()
    return None
