"""Calls on their way: from the request to the result, or to the caller's giving up.

Owns the table of outstanding calls. `CallTable.settle` runs on the leader; callers wait in `Dispatcher.wait` or on
their own event loop. The engine enforces deadlines; the SDK's own, a little later, is a net for a lost answer.
"""

from __future__ import annotations

from threading import Lock, get_ident

from iii.errors import ErrorCode, InvocationError
from iii.ids import mint_id
from iii.worker.api.actions import EnqueueResult
from iii.worker.api.requests import message_from
from iii.worker.calls.errors import error_from_body
from iii.worker.context.invocation import CURRENT
from iii.worker.context.tracing import current_trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable
    from typing import Any

    from iii.worker.api.requests import TriggerRequest
    from iii.worker.codec.codec import Message

# How much longer than the deadline the SDK waits for the engine's TIMEOUT.
NET_SECONDS = 1.0


class Call:
    """One outstanding call; what its caller waits on is its subclasses' affair."""

    __slots__ = ("answer", "head", "id")

    thread = 0  # the one that blocks until the answer is there

    def __init__(self, head: Message) -> None:
        self.id: str = head["invocation_id"]
        self.head = head
        self.answer: Message | None = None

    @property
    def is_settled(self) -> bool:
        """Whether there is an answer."""
        return self.answer is not None

    @property
    def function_id(self) -> str:
        """The function that is called."""
        return str(self.head["function_id"])

    @property
    def net(self) -> float | None:
        """Seconds to wait before giving up without the engine."""
        timeout = self.head.get("deadline_ms")
        return None if timeout is None else timeout / 1000 + NET_SECONDS

    def settle(self, answer: Message) -> None:
        """Keep the answer and let the caller go on."""
        self.answer = answer

    def result(self) -> Any:
        """Return the result; raise InvocationError for an error."""
        answer = self.answer or {}
        if answer.get("error"):
            raise error_from_body(answer["error"], self.function_id, self.id)
        result = answer.get("result")
        if "action" in self.head and self.head["action"].get("type") == "enqueue" and isinstance(result, dict):
            return EnqueueResult(result)
        return result

    def timeout_error(self) -> InvocationError:
        """The error of a call that nobody answered in time."""
        text = f"invocation timed out after {self.head.get('deadline_ms') or 0:g}ms"
        return InvocationError(ErrorCode.TIMEOUT, text, self.function_id, None, self.id)


class BlockingCall(Call):
    """One outstanding call of a thread; `lock` opens when the result is there."""

    __slots__ = ("lock", "thread")

    def __init__(self, head: Message) -> None:
        super().__init__(head)
        self.lock = Lock()
        self.lock.acquire()
        self.thread = get_ident()

    def settle(self, answer: Message) -> None:
        """Keep the answer and let the caller go on."""
        super().settle(answer)
        self.lock.release()


class AwaitedCall(Call):
    """One outstanding call of a coroutine: its future is completed on its own loop."""

    __slots__ = ("future", "loop", "waiting")

    def __init__(self, head: Message, loop: AbstractEventLoop, waiting: list[AwaitedCall]) -> None:
        self.id, self.head, self.answer = head["invocation_id"], head, None
        self.loop = loop
        self.future: Future[None] = loop.create_future()
        self.waiting = waiting

    def settle(self, answer: Message) -> None:
        """Keep the answer; `CallTable.wake` tells the loop, once for a whole block."""
        self.answer = answer
        self.waiting.append(self)

    def wake_up(self) -> None:
        """Let the caller go on, with whatever there is. Runs on its loop."""
        if not self.future.done():
            self.future.set_result(None)


class StreamedCall(Call):
    """One outstanding call whose items are given to `deliver` as they come, and at last the answer itself."""

    __slots__ = ("deliver",)

    def __init__(self, head: Message, deliver: Callable[[Message], None]) -> None:
        super().__init__(head)
        self.deliver = deliver

    def settle(self, answer: Message) -> None:
        """Deliver the end."""
        super().settle(answer)
        self.deliver({**answer, "type": "invocationresult"})


class CallTable:
    """Outstanding calls by id."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        self._waiting: list[AwaitedCall] = []
        self._end: InvocationError | None = None
        self.unknown_results = 0

    def __len__(self) -> int:
        return len(self._calls)

    def open(self, head: Message) -> BlockingCall:
        """Note a call of this thread. `head` is its message without the payload."""
        call = BlockingCall(head)
        self._note(call)
        return call

    def open_awaited(self, head: Message, loop: AbstractEventLoop) -> AwaitedCall:
        """Note a call of a coroutine on `loop`."""
        call = AwaitedCall(head, loop, self._waiting)
        self._note(call)
        return call

    def open_streamed(self, head: Message, deliver: Callable[[Message], None]) -> StreamedCall:
        """Note a call whose messages go to `deliver`."""
        call = StreamedCall(head, deliver)
        self._note(call)
        return call

    def add_item(self, message: Message) -> None:
        """Give an item or progress to its caller."""
        call = self._calls.get(str(message.get("invocation_id")))
        if isinstance(call, StreamedCall):
            call.deliver(message)

    def _note(self, call: Call) -> Call:
        self._calls[call.id] = call
        if self._end is not None:
            self._calls.pop(call.id, None)
            raise self._end
        return call

    def has(self, call_id: str) -> bool:
        """Whether somebody here waits for the answer to this call."""
        return call_id in self._calls

    def drop(self, call: Call) -> None:
        """Forget a call that was given up."""
        self._calls.pop(call.id, None)

    def settle(self, answer: Message) -> int:
        """Give an answer to its caller; count it when nobody waits for it any more.

        Returns the caller's thread if it blocked and no other call is outstanding, else 0.
        """
        call = self._calls.pop(str(answer.get("invocation_id")), None)
        if call is None:
            self.unknown_results += 1
            return 0
        call.settle(answer)
        return 0 if self._calls else call.thread

    def wake(self, here: AbstractEventLoop | None = None) -> None:
        """Complete the futures of everything settled since the last time, one wake-up per loop.

        `here` is the loop whose thread this is, None on any other.
        """
        if not self._waiting:
            return
        settled = self._waiting[:]
        del self._waiting[: len(settled)]
        by_loop: dict[AbstractEventLoop, list[AwaitedCall]] = {}
        for call in settled:
            if call.loop is here:
                call.wake_up()
            else:
                by_loop.setdefault(call.loop, []).append(call)
        for loop, calls in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_complete, calls)

    def end(self, error: InvocationError) -> None:
        """Fail every outstanding and every later call with `error`."""
        self._end = error
        self.interrupt(error)

    def interrupt(self, error: InvocationError) -> None:
        """Fail every outstanding call with `error`; later ones are welcome."""
        body = {"code": error.code, "message": error.message}
        for call_id in list(self._calls):
            self.settle({"invocation_id": call_id, "error": body})
        self.wake()


def _complete(calls: list[AwaitedCall]) -> None:
    for call in calls:
        call.wake_up()


def prepare(
    request: TriggerRequest, namespace: str | None, default_timeout_ms: float | None, *, window: int | None = None
) -> Message:
    """Return the message of a request made in the current invocation; with `window`, of a streamed call.

    All of it but the payload, which is to be its last key: whoever knows that a line is ours finds the payload's end
    without parsing the payload.

    A deadline is on the wire only when somebody set one; an inner call never outlives the call it is part of.
    InvocationError `TIMEOUT` when that one's time is already over.
    """
    message = message_from(request, namespace)
    if not _is_void(message):
        message["invocation_id"] = mint_id()
    timeout = request.timeout_ms if request.timeout_ms is not None else default_timeout_ms
    outer = CURRENT.get()
    if outer is not None:
        message["caller"] = {"function_id": outer.function_id, "invocation_id": outer.invocation_id}
        timeout = _within(timeout, outer.remaining_ms)
    if request.trace is None:
        trace = current_trace()
        if trace:
            message.update(trace)
    if timeout is not None:
        if timeout <= 0:
            raise InvocationError(ErrorCode.TIMEOUT, "invocation timed out after 0ms", request.function_id)
        message["deadline_ms"] = max(1, int(timeout))
    if window is not None:
        message["stream"] = True
        message["window"] = window
    return message


def _is_void(message: Message) -> bool:
    action = message.get("action")
    return action is not None and action.get("type") == "void"


def _within(timeout: float | None, remaining: float | None) -> float | None:
    if timeout is None or remaining is None:
        return remaining if timeout is None else timeout
    return min(timeout, remaining)
