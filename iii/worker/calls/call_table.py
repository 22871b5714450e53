"""The outstanding calls of this process: from the request to the answer, or until the caller gives up.

`CallTable.settle` runs on the thread that reads; blocking callers wait in the dispatcher, coroutines on their own event
loop. The engine enforces deadlines. The caller's own timeout is a little later, in case an answer is lost.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Lock, get_ident

from iii.errors import ErrorCode, InvocationError
from iii.ids import mint_id
from iii.worker.api.requests import EnqueueResult, message_from
from iii.worker.calls.errors import error_from_body
from iii.worker.context.invocation import CURRENT
from iii.worker.context.tracing import current_trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable
    from typing import Any, TypeVar

    from iii.worker.api.requests import TriggerRequest
    from iii.worker.codec.codec import Message

    C = TypeVar("C", bound="Call")

# How long after the deadline a caller still waits for the engine's TIMEOUT before it takes the answer for lost.
LOST_ANSWER_TIMEOUT = 1.0


class Call:
    """One outstanding call. Its subclasses differ in how the caller waits: blocking, awaiting or streaming.

    `head` is the call's message without the payload. `thread` is the id of the thread that blocks, 0 if none does.
    """

    __slots__ = ("answer", "head", "id")

    thread = 0

    def __init__(self, head: Message) -> None:
        self.id: str = head["invocation_id"]
        self.head = head
        self.answer: Message | None = None

    @property
    def is_settled(self) -> bool:
        return self.answer is not None

    @property
    def function_id(self) -> str:
        return str(self.head["function_id"])

    @property
    def answer_timeout(self) -> float | None:
        """Seconds after which the caller gives up without the engine, None without a deadline."""
        deadline_ms = self.head.get("deadline_ms")
        if deadline_ms is None or "awaits_end" in self.head:
            return None
        seconds: float = deadline_ms / 1000 + LOST_ANSWER_TIMEOUT
        return seconds

    def settle(self, answer: Message) -> None:
        """Keep the answer; subclasses let the caller go on."""
        self.answer = answer

    def add_item(self, message: Message) -> None:
        """Take an item, or a report of progress; only a caller that streams wants any."""

    def result(self) -> Any:
        """Return the answer's result, as `EnqueueResult` for a queue's receipt; raise InvocationError for its error."""
        answer = self.answer or {}
        if answer.get("error"):
            raise error_from_body(answer["error"], self.function_id, self.id)
        result = answer.get("result")
        action = self.head.get("action") or {}
        if action.get("type") == "enqueue" and not action.get("wait") and isinstance(result, dict):
            return EnqueueResult(result)
        return result

    def timeout_error(self) -> InvocationError:
        """The error of a call that got no answer in time."""
        text = f"invocation timed out after {self.head.get('deadline_ms') or 0:g}ms"
        return InvocationError(ErrorCode.TIMEOUT, text, self.function_id, None, self.id)


class BlockingCall(Call):
    """One outstanding call of a thread; `lock` is released when the answer is there."""

    __slots__ = ("lock", "thread")

    def __init__(self, head: Message) -> None:
        super().__init__(head)
        self.lock = Lock()
        self.lock.acquire()
        self.thread = get_ident()

    def settle(self, answer: Message) -> None:
        self.answer = answer
        self.lock.release()


class AwaitedCall(Call):
    """One outstanding call of a coroutine: its future is completed on its own loop.

    `settled` is the table's list of calls whose loop does not know of the answer yet.
    """

    __slots__ = ("future", "loop", "settled")

    def __init__(self, head: Message, loop: AbstractEventLoop, settled: list[AwaitedCall]) -> None:
        self.id, self.head, self.answer = head["invocation_id"], head, None
        self.loop = loop
        self.future: Future[None] = loop.create_future()
        self.settled = settled

    def settle(self, answer: Message) -> None:
        """Keep the answer; `CallTable.wake` tells the loop, once for all answers of a block."""
        self.answer = answer
        self.settled.append(self)

    def wake_up(self) -> None:
        """Let the caller go on, with an answer or without. Runs on its loop."""
        if not self.future.done():
            self.future.set_result(None)


class AwaitedStream(AwaitedCall):
    """One outstanding call of a coroutine that takes its items as they come. `items` are those not yet taken."""

    __slots__ = ("items",)

    def __init__(self, head: Message, loop: AbstractEventLoop, settled: list[AwaitedCall]) -> None:
        super().__init__(head, loop, settled)
        self.items: list[Message] = []

    def add_item(self, message: Message) -> None:
        self.items.append(message)
        self.settled.append(self)

    async def next_item(self) -> Message | None:
        """Return the next item, None when the answer is there and no item is left."""
        while not self.items:
            if self.answer is not None:
                # The reading thread puts the answer behind all items.
                return self.items.pop(0) if self.items else None
            self.future = self.loop.create_future()
            await self.future
        return self.items.pop(0)


class StreamedCall(Call):
    """One outstanding call of a thread that passes its items to `deliver` as they come, and at last the answer."""

    __slots__ = ("deliver",)

    def __init__(self, head: Message, deliver: Callable[[Message], None]) -> None:
        super().__init__(head)
        self.deliver = deliver

    def add_item(self, message: Message) -> None:
        self.deliver(message)

    def settle(self, answer: Message) -> None:
        self.answer = answer
        self.deliver({**answer, "type": "invocationresult"})


class CallTable:
    """Outstanding calls by id. `settled` holds the awaited calls whose loop `wake` is to tell."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        self.settled: list[AwaitedCall] = []
        self._end: InvocationError | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: C) -> C:
        """Add a call and return it. InvocationError when the table has ended."""
        # First added, then asked: `end` on another thread finds the call, or this thread finds the end.
        self._calls[call.id] = call
        if self._end is not None:
            self._calls.pop(call.id, None)
            raise self._end
        return call

    def add_item(self, message: Message) -> None:
        """Give an item, or a report of progress, to its caller."""
        call = self._calls.get(str(message.get("invocation_id")))
        if call is not None:
            call.add_item(message)

    def has(self, call_id: str) -> bool:
        """Whether a caller in this process waits for the answer to this call."""
        return call_id in self._calls

    def drop(self, call: Call) -> None:
        self._calls.pop(call.id, None)

    def settle(self, answer: Message) -> int:
        """Give an answer to its caller, unless the caller has given up.

        Returns the caller's thread if the caller blocks and no other call is outstanding, else 0.
        """
        call = self._calls.pop(str(answer.get("invocation_id")), None)
        if call is None:
            return 0
        call.settle(answer)
        return 0 if self._calls else call.thread

    def wake(self, here: AbstractEventLoop | None = None) -> None:
        """Complete the futures of all calls settled since the last time, with one wake-up for each loop.

        `here` is the loop whose thread this is, None on a thread without one.
        """
        if not self.settled:
            return
        settled = self.settled[:]
        del self.settled[: len(settled)]
        by_loop: dict[AbstractEventLoop, list[AwaitedCall]] = {}
        for call in settled:
            if call.loop is here:
                call.wake_up()
            else:
                by_loop.setdefault(call.loop, []).append(call)
        for loop, calls in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed: its callers are gone
                loop.call_soon_threadsafe(_wake_up_all, calls)

    def end(self, error: InvocationError) -> None:
        """Fail every outstanding and every later call with `error`."""
        self._end = error
        self.interrupt(error)

    def interrupt(self, error: InvocationError) -> None:
        """Fail every outstanding call with `error`, and none of the later ones."""
        body = {"code": error.code, "message": error.message}
        for call_id in list(self._calls):
            self.settle({"invocation_id": call_id, "error": body})
        self.wake()


def _wake_up_all(calls: list[AwaitedCall]) -> None:
    for call in calls:
        call.wake_up()


def prepare(
    request: TriggerRequest, namespace: str | None, default_timeout_ms: float | None, *, window: int | None = None
) -> Message:
    """Return the message of a request made in the current invocation, without its payload.

    The payload is to be the message's last key: a reader that knows the SDK's lines finds the payload's end without
    parsing the payload. A void call has no `invocation_id`. With `window` it is a streamed call: so many items may be
    on their way before the caller has taken them.

    The message has a deadline only if the request, the worker or the current invocation has one; an inner call never
    outlives the call it is part of. InvocationError `TIMEOUT` when that one's time is already over.
    """
    message = message_from(request, namespace)
    action = message.get("action")
    if action is None or action.get("type") != "void":
        message["invocation_id"] = mint_id()
    timeout = request.timeout_ms if request.timeout_ms is not None else default_timeout_ms
    outer = CURRENT.get()
    if outer is not None:
        message["caller"] = {"function_id": outer.function_id, "invocation_id": outer.invocation_id}
        remaining = outer.remaining_ms
        if remaining is not None and (timeout is None or remaining < timeout):
            timeout = remaining
    if request.trace is None:
        trace = current_trace()
        if trace:
            message.update(trace)
    if timeout is not None:
        if timeout <= 0:
            raise InvocationError(ErrorCode.TIMEOUT, "invocation timed out after 0ms", request.function_id)
        message["deadline_ms"] = max(1, int(timeout))
        if request.awaits_end:
            message["awaits_end"] = True
    if window is not None:
        message |= {"stream": True, "window": window}
    return message
