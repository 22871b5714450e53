"""`Flow` and `AsyncFlow`: what a flow gets as its first argument."""

from __future__ import annotations

import sys
from contextvars import copy_context
from threading import Lock, Thread, get_ident

from iii.errors import InvocationError
from iii.worker.flows.endings import FlowCancelled, FlowParked
from iii.worker.flows.steps import UNSET, Steps, is_infrastructure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from datetime import datetime
    from typing import Any, NoReturn, TypedDict, Unpack

    from iii.worker.flows.steps import Operation

    class CallOptions(TypedDict, total=False):
        """The keyword arguments of `Flow.call`.

        `undo` is the id of a function that gets `{"input", "result"}` when the run fails or is cancelled. `max_retries`
        are all attempts (3), `backoff_ms` (1000) doubles with each, `timeout_ms` is that of one attempt. With `queue`
        the call is a job there, with all of that queue's limits. `name` is the step's, `was` what it was called before.
        """

        name: str
        undo: str
        max_retries: int
        backoff_ms: int
        timeout_ms: int
        queue: str
        namespace: str
        was: str


class Flow(Steps):
    """The run of a flow, for its body. Every method with a `name` is a step: made once, recorded, and then repeated.

    A step's key is its name (of a call: the function's id), from its second use on `name#2`. `was` names what it was
    called before. A step that fails raises InvocationError, in this turn and in all later ones.
    """

    def call(self, function_id: str, payload: Any = None, **options: Unpack[CallOptions]) -> Any:
        """Call a function and return its result; of a flow, start a child run and wait for it.

        paid = flow.call("pay::charge", {"amount": 5}, undo="pay::refund", max_retries=5)
        """
        return self._run(self._call(function_id, payload, options))

    def step(
        self,
        name: str,
        function: Callable[..., Any],
        *arguments: Any,
        undo: str | None = None,
        was: str | None = None,
    ) -> Any:
        """Call a local function and record what it returns, which must be JSON; an exception is recorded too."""
        return self._run(self._step(name, function, arguments, undo, was))

    def start(self, function_id: str, payload: Any = None, *, id: str | None = None, name: str | None = None) -> Any:
        """Start a run that goes on by itself; return `{"run": ID}`."""
        return self._run(self._start(function_id, payload, id, name))

    def sleep(self, duration: float | str, *, name: str | None = None) -> None:
        """Go on after so many seconds, or a text like `"3d"`."""
        self._run(self._sleep_for(duration, name))

    def sleep_until(self, moment: datetime, *, name: str | None = None) -> None:
        """Go on at a moment; one without a time zone is local time."""
        self._run(self._sleep_until(moment, name))

    def wait(
        self,
        event: str | list[str],
        *,
        timeout: float | str | None = None,
        default: Any = UNSET,
        name: str | None = None,
    ) -> Any:
        """Return the payload of the next event of this name; of several names, `{"event", "payload"}` of the first.

        After `timeout` the `default`, without one InvocationError `flow_timeout`.
        """
        return self._run(self._wait(event, timeout, default, name))

    def map(
        self, function: str | Callable[[Flow, Any], Any], items: Iterable[Any], *, concurrency: int = 10
    ) -> list[Any]:
        """Call a function (by id, or `function(flow, item)`) for each item, some at once; return the results in order.

        All are tried; then the error of the first that has failed is raised.
        """
        items = list(items)
        name = function if isinstance(function, str) else _name_of(function)

        def branch(flow: Flow, index: int) -> Any:
            item = items[index]
            return flow.call(function, item) if isinstance(function, str) else function(flow, item)

        return self._all(name, [branch] * len(items), concurrency)

    def gather(self, *branches: Callable[[Flow], Any], concurrency: int = 10) -> list[Any]:
        """Run branches at once, each with a handle of its own; return the results in order, as `map` does."""

        def call(flow: Any, index: int) -> Any:
            return branches[index](flow)

        return self._all("gather", [call] * len(branches), concurrency)

    def status(self, value: Any) -> None:
        """Show a value in `flow::get`; it is kept with the next step."""
        self._run(self._say("status", {"status": value}))

    def patched(self, name: str) -> bool:
        """Return whether the run takes new code: False for a run that had gone past this place before."""
        return bool(self._run(self._patched(name)))

    def token(self, event: str) -> str:
        """Return an unguessable text that stands for this run and an event in `flow::signal`."""
        return str(self._run(self._say("token", {"event": event})))

    def again(self, input: Any) -> NoReturn:
        """Begin the run anew with another input and an empty journal; unread events are kept."""
        self._run(self._say("again", {"input": input}))
        raise FlowParked

    def tell(self) -> None:
        """Tell the flow worker what was read last of the journal, before the body ends. Raises FlowParked."""
        if (request := self.progress.rest()) is not None:
            self._trigger(request)

    def _task(self) -> int:
        return get_ident()

    def _run(self, operation: Operation) -> Any:
        try:
            wanted = next(operation)
            while True:
                try:
                    result = wanted() if callable(wanted) else self._trigger(wanted)
                except BaseException as error:  # noqa: BLE001 - handed on to the operation
                    wanted = operation.throw(error)
                else:
                    wanted = operation.send(result)
        except StopIteration as stop:
            return stop.value

    def _trigger(self, request: Any) -> Any:
        try:
            return self._worker.trigger(request)
        except InvocationError as error:
            if is_infrastructure(error):
                raise FlowParked(str(error)) from error
            raise

    def _all(self, name: str, branches: Sequence[Callable[[Any, int], Any]], concurrency: int) -> list[Any]:
        outcomes = Outcomes(len(branches), concurrency)
        paths = self._branches(name, len(branches))
        flows = [Flow(self._worker, self.progress, path, self._at) for path in paths]

        def work() -> None:
            while (index := outcomes.take()) is not None:
                try:
                    outcomes.add(index, branches[index](flows[index], index))
                except BaseException as error:  # noqa: BLE001 - raised again by the body's own thread
                    if outcomes.fail(index, error):
                        return

        # One branch at a time runs on this thread: most turns find all of them recorded.
        threads = [
            Thread(target=copy_context().run, args=(work,), name=f"{name}-{number}", daemon=True)
            for number in range(1, outcomes.workers)
        ]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        self._at = max((flow._at for flow in flows), default=self._at)
        return outcomes.results()


class AsyncFlow(Steps):
    """As `Flow`, for coroutine functions: the methods are awaited."""

    async def call(self, function_id: str, payload: Any = None, **options: Unpack[CallOptions]) -> Any:
        """As `Flow.call`."""
        return await self._run(self._call(function_id, payload, options))

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *arguments: Any,
        undo: str | None = None,
        was: str | None = None,
    ) -> Any:
        """As `Flow.step`; the function may be a coroutine function."""
        return await self._run(self._step(name, function, arguments, undo, was))

    async def start(
        self, function_id: str, payload: Any = None, *, id: str | None = None, name: str | None = None
    ) -> Any:
        """As `Flow.start`."""
        return await self._run(self._start(function_id, payload, id, name))

    async def sleep(self, duration: float | str, *, name: str | None = None) -> None:
        """As `Flow.sleep`."""
        await self._run(self._sleep_for(duration, name))

    async def sleep_until(self, moment: datetime, *, name: str | None = None) -> None:
        """As `Flow.sleep_until`."""
        await self._run(self._sleep_until(moment, name))

    async def wait(
        self,
        event: str | list[str],
        *,
        timeout: float | str | None = None,
        default: Any = UNSET,
        name: str | None = None,
    ) -> Any:
        """As `Flow.wait`."""
        return await self._run(self._wait(event, timeout, default, name))

    async def map(
        self,
        function: str | Callable[[AsyncFlow, Any], Awaitable[Any]],
        items: Iterable[Any],
        *,
        concurrency: int = 10,
    ) -> list[Any]:
        """As `Flow.map`."""
        items = list(items)
        name = function if isinstance(function, str) else _name_of(function)

        async def branch(flow: AsyncFlow, index: int) -> Any:
            item = items[index]
            return await (flow.call(function, item) if isinstance(function, str) else function(flow, item))

        return await self._all(name, [branch] * len(items), concurrency)

    async def gather(self, *branches: Callable[[AsyncFlow], Awaitable[Any]], concurrency: int = 10) -> list[Any]:
        """As `Flow.gather`."""

        def call(flow: Any, index: int) -> Any:
            return branches[index](flow)

        return await self._all("gather", [call] * len(branches), concurrency)

    async def status(self, value: Any) -> None:
        """As `Flow.status`."""
        await self._run(self._say("status", {"status": value}))

    async def patched(self, name: str) -> bool:
        """As `Flow.patched`."""
        return bool(await self._run(self._patched(name)))

    async def token(self, event: str) -> str:
        """As `Flow.token`."""
        return str(await self._run(self._say("token", {"event": event})))

    async def again(self, input: Any) -> NoReturn:
        """As `Flow.again`."""
        await self._run(self._say("again", {"input": input}))
        raise FlowParked

    async def tell(self) -> None:
        """As `Flow.tell`."""
        if (request := self.progress.rest()) is not None:
            await self._trigger(request)

    def _task(self) -> int:
        return id(sys.modules["asyncio"].current_task())

    async def _run(self, operation: Operation) -> Any:
        try:
            wanted = next(operation)
            while True:
                try:
                    result = wanted() if callable(wanted) else await self._trigger(wanted)
                    if hasattr(result, "__await__"):
                        result = await result
                except BaseException as error:  # noqa: BLE001 - handed on to the operation
                    wanted = operation.throw(error)
                else:
                    wanted = operation.send(result)
        except StopIteration as stop:
            return stop.value

    async def _trigger(self, request: Any) -> Any:
        try:
            return await self._worker.trigger_async(request)
        except InvocationError as error:
            if is_infrastructure(error):
                raise FlowParked(str(error)) from error
            raise

    async def _all(
        self, name: str, branches: Sequence[Callable[[Any, int], Awaitable[Any]]], concurrency: int
    ) -> list[Any]:
        import asyncio  # loaded by the loop this runs on

        outcomes = Outcomes(len(branches), concurrency)
        paths = self._branches(name, len(branches))
        flows = [AsyncFlow(self._worker, self.progress, path, self._at) for path in paths]

        async def work() -> None:
            while (index := outcomes.take()) is not None:
                try:
                    outcomes.add(index, await branches[index](flows[index], index))
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # noqa: BLE001 - raised again by the body's own task
                    if outcomes.fail(index, error):
                        return

        await asyncio.gather(*(work() for _ in range(outcomes.workers)))
        self._at = max((flow._at for flow in flows), default=self._at)
        return outcomes.results()


class Outcomes:
    """The ends of branches. One that waits keeps its place: no more than `concurrency` are begun and not over."""

    def __init__(self, count: int, concurrency: int) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency!r}")
        self.workers = min(count, concurrency)
        self._count = count
        self._next = 0
        self._lock = Lock()
        self._results: list[Any] = [None] * count
        self._errors: dict[int, BaseException] = {}

    def take(self) -> int | None:
        """Return the next branch to begin, None if there is none."""
        with self._lock:
            index, self._next = self._next, self._next + 1
            return index if index < self._count else None

    def add(self, index: int, result: Any) -> None:
        """Keep the result of a branch."""
        self._results[index] = result

    def fail(self, index: int, error: BaseException) -> bool:
        """Keep what a branch has raised; tell whether it keeps its place, because it is not over."""
        self._errors[index] = error
        return isinstance(error, FlowParked)

    def results(self) -> list[Any]:
        """Return the results in order. Raises FlowParked while a branch waits, else what the first one has raised."""
        errors = [self._errors[index] for index in sorted(self._errors)]
        for kind in (FlowParked, FlowCancelled, BaseException):
            for error in errors:
                if isinstance(error, kind):
                    raise error
        return self._results


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "")
    return name if name.isidentifier() else "map"
