"""Runs handlers: the one place where whatever user code raises becomes an error body.

`run` is for the dispatcher's threads, `run_async` for the event loop. Every invocation with an id is answered, exactly
once. Running invocations are kept by id so that `cancel` finds them and `stop` knows when the last has ended.
"""

from __future__ import annotations

from contextvars import copy_context
from threading import Event
from types import CoroutineType, GeneratorType

from iii.errors import ErrorCode, InvocationError, LocalProtocolError
from iii.worker.calls.errors import body_from_exception
from iii.worker.codec.limits import MAX_LINE
from iii.worker.context.invocation import CURRENT, InvocationContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.worker.codec.codec import Codec, Message
    from iii.worker.functions.handler import Handler
    from iii.worker.runtime.event_loop import LoopThread
    from iii.worker.runtime.line_writer import Outbox

_set_current = CURRENT.set
_ANSWER = b'{"type":"invocationresult","invocation_id":'


class Runner:
    """Calls handlers and answers their invocations."""

    def __init__(self, codec: Codec, outbox: Outbox, loop: LoopThread) -> None:
        self._codec = codec
        self._outbox = outbox
        self._loop = loop
        self._running: dict[str | int, InvocationContext] = {}
        self._is_draining = False
        self.drained = Event()
        self.after_run: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._running)

    def run(self, handler: Handler, message: Message) -> None:
        """Run a sync handler here and add its answer to the outbox, unflushed."""
        # As `_begin` and `_finish`, without the calls: this is the path of every sync handler.
        invocation = InvocationContext(message)
        self._running[invocation.key] = invocation
        if "stream" in message:
            self._open_window(invocation)
        try:
            # A context of its own: what a handler sets must not be seen by the next one on this thread.
            result = copy_context().run(_call_whole, handler, invocation)
        except BaseException as error:  # noqa: BLE001 - the boundary: a handler's SystemExit ends no worker
            self.answer_error(message, body_from_exception(error))
        else:
            self._answer(handler, message, result)
        self._running.pop(invocation.key, None)
        self.after_run()
        if self._is_draining:
            self._note_drained()

    def submit(self, handler: Handler, message: Message) -> None:
        """Run an async handler on the loop."""
        invocation = self._begin(message)  # now: a `cancel` may come before the loop does
        if self._loop.is_current():
            self._start(handler, invocation)
        else:
            self._loop.call(lambda: self._start(handler, invocation))

    def _start(self, handler: Handler, invocation: InvocationContext) -> None:
        # Kept, because a loop keeps no task that nobody else knows. Not as `task` yet: cancelling a task that has not
        # begun would end it without an answer.
        invocation.unbegun = self._loop.loop.create_task(self._run_async(handler, invocation))

    async def _run_async(self, handler: Handler, invocation: InvocationContext) -> None:
        message = invocation.message
        invocation.task = invocation.unbegun
        try:
            if invocation.cancelled:
                raise InvocationError(ErrorCode.CANCELLED, "the caller gave up")
            _set_current(invocation)
            data = message.get("data")
            result = _call_with_metadata(handler, invocation) if handler.takes_metadata else handler.call(data)
            result = await (result if result.__class__ is CoroutineType else _resolve(result, invocation))
        except BaseException as error:  # noqa: BLE001 - the boundary, as in `run`
            self.answer_error(message, _body_of_async(error))
        else:
            self._answer(handler, message, result)
        # The task's context holds the invocation: a cycle that only the collector would free.
        invocation.task = invocation.unbegun = None
        self._finish(invocation)
        self._outbox.flush_soon(self._loop.loop)

    def _begin(self, message: Message) -> InvocationContext:
        invocation = InvocationContext(message)
        self._running[invocation.key] = invocation
        if "stream" in message:
            self._open_window(invocation)
        return invocation

    def _open_window(self, invocation: InvocationContext) -> None:
        if invocation.is_streamed:
            from iii.worker.runtime.flow_control import ItemWindow  # few workers stream

            invocation.window = ItemWindow(invocation.message.get("window"))
            invocation.send_item = lambda fields: self._send_item(invocation, fields)

    def _send_item(self, invocation: InvocationContext, fields: dict[str, Any]) -> None:
        message = {"type": "invocationitem", "invocation_id": invocation.invocation_id, **fields}
        line = self._codec.encode(message)
        if "item" in fields:
            invocation.window.sent(len(line))
        self._outbox.add(line)
        self._outbox.flush()

    def note_taken(self, invocation_id: str, count: int) -> None:
        """The caller of a streamed invocation has taken so many more items."""
        invocation = self._running.get(invocation_id)
        if invocation is not None and invocation.window is not None:
            invocation.window.taken(count)

    def end_streams(self) -> None:
        """Nobody takes the items of what runs now any more."""
        for invocation in list(self._running.values()):
            if invocation.window is not None:
                self.cancel(str(invocation.invocation_id))

    def _finish(self, invocation: InvocationContext) -> None:
        self._running.pop(invocation.key, None)
        self.after_run()
        if self._is_draining:
            self._note_drained()

    def _note_drained(self) -> None:
        if not self._running:
            self.drained.set()

    def _answer(self, handler: Handler, message: Message, result: Any) -> None:
        """Add the result of an invocation; without an id there is nobody to answer."""
        invocation_id = message.get("invocation_id")
        if invocation_id is None:
            return
        codec = self._codec
        try:
            # Put together here: a dict for the encoder to walk through would take longer.
            parts = (_ANSWER, codec.encode_text(invocation_id), handler.before_result, codec.encode(result, 1), b"}")
        except LocalProtocolError as error:
            self.answer_error(message, {"code": error.code, "message": error.message})
            return
        line = b"".join(parts)
        if len(line) >= MAX_LINE:
            text = f"the result of {len(line)} bytes is over the limit of {MAX_LINE}; use a channel"
            self.answer_error(message, {"code": ErrorCode.PAYLOAD_TOO_LARGE, "message": text})
            return
        self._outbox.add(line)

    def answer_error(self, message: Message, body: dict[str, Any]) -> None:
        """Add an error as the answer."""
        invocation_id = message.get("invocation_id")
        if invocation_id is None:
            return
        fields = {
            "type": "invocationresult",
            "invocation_id": invocation_id,
            "function_id": message.get("function_id"),
            "error": body,
        }
        try:
            self._outbox.add(self._codec.encode(fields))
        except LocalProtocolError:
            # Details or a message that JSON cannot hold: the answer matters more.
            fields["error"] = {"code": str(body["code"]), "message": ascii(body["message"])}
            self._outbox.add(self._codec.encode(fields))

    def cancel(self, invocation_id: str) -> None:
        """Cancel a running invocation: an async handler gets CancelledError, a sync one sees the flag."""
        invocation = self._running.get(invocation_id)
        if invocation is None:
            return
        invocation.cancelled = True
        if invocation.window is not None:
            invocation.window.end()
        if invocation.task is not None:
            self._loop.call_soon(invocation.task.cancel)

    def drain(self) -> Event:
        """Return an event that is set once no invocation runs."""
        self._is_draining = True
        self._note_drained()
        return self.drained


def _call_whole(handler: Handler, invocation: InvocationContext) -> Any:
    _set_current(invocation)
    data = invocation.message.get("data")
    result = _call_with_metadata(handler, invocation) if handler.takes_metadata else handler.call(data)
    return _run_generator(result, invocation) if result.__class__ is GeneratorType else result


def _run_generator(items: Any, invocation: InvocationContext) -> list[Any] | None:
    """Send the items of a generator as they come, or collect them for a caller that wants one result."""
    if not invocation.is_streamed:
        return list(items)
    for item in items:
        if invocation.cancelled:
            items.close()
            break
        invocation.send_item({"item": item})
        invocation.window.wait()
    return None


def _body_of_async(error: BaseException) -> dict[str, Any]:
    import asyncio  # loaded by the loop this runs on

    if isinstance(error, asyncio.CancelledError):
        return {"code": ErrorCode.CANCELLED, "message": "the caller gave up"}
    return body_from_exception(error)


async def _resolve(result: Any, invocation: InvocationContext) -> Any:
    """Await what is no coroutine: send the items of a generator or collect them, or await whatever else it is."""
    if not hasattr(result, "__aiter__"):
        return await result
    if not invocation.is_streamed:
        return [item async for item in result]
    async for item in result:
        invocation.send_item({"item": item})
        if invocation.window.is_full:
            await invocation.window.wait_async()
    return None


def _call_with_metadata(handler: Handler, invocation: InvocationContext) -> Any:
    return handler.call(invocation.message.get("data"), metadata=invocation.metadata)
