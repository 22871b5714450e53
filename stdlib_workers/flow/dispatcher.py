"""Makes the turns: calls the bodies, and writes down how each call has ended. Owns the timer for what is due.

Runs on the event loop of the worker's handlers, so that a turn and what its body asks for need no lock. Which turns
begin is decided in the transactions of `runs`; nothing here counts slots.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

import orjson

from iii import InvocationError, TriggerRequestInput, Worker
from stdlib_workers.attempts import DONE, Outcome, Verdict, is_end_of_engine, verdict_from
from stdlib_workers.events import Outbox
from stdlib_workers.flow.bindings import Flow, Flows
from stdlib_workers.flow.calls import ENGINE_END_TIMEOUT, NO_TIMEOUT, SIDECAR, STORAGE_RETRY_INTERVAL, Calls, say
from stdlib_workers.flow.ends import forget
from stdlib_workers.flow.model import Entry, Event, Run, State
from stdlib_workers.flow.policy import RECOVERY_DELAY_MS, STORAGE_DELAY_MS, TurnEnd, after_turn
from stdlib_workers.flow.runs import Runs
from stdlib_workers.flow.transaction import FENCED, LIMIT, Changes, TurnStart, encode, error_bytes
from stdlib_workers.flow.turn import CANCELLED, SUSPENDED, Turn, reply_from

# Of the time to stop, the part that the process itself needs.
EXIT_TIMEOUT = 0.2
# How often ended runs that have been kept long enough are looked for.
FORGET_INTERVAL = 3600.0
# A turn that was cancelled has so long to end before the next one begins; its writes are refused in any case.
FENCE_TIMEOUT = 0.25


class Dispatcher:
    """The turns under way, by the id of their run, and those who wait for the ends of runs.

    While anything waits for its time, the `clock`, in milliseconds, is read at least every `longest_timer` seconds.
    """

    def __init__(
        self, worker: Worker, runs: Runs, flows: Flows, clock: Callable[[], int], longest_timer: float
    ) -> None:
        self._worker = worker
        self._runs = runs
        self._flows = flows
        self._clock = clock
        self._longest_timer = longest_timer
        self._loop: asyncio.AbstractEventLoop | None = None
        self.turns: dict[str, Turn] = {}
        self.calls = Calls(worker, runs, clock, self.spawn)
        self._outbox: Outbox | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._bodies: dict[int, asyncio.Task[Any]] = {}
        self._results: dict[str, list[asyncio.Future[Run]]] = {}
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._due: int | None = None
        self.on_failure: Callable[[BaseException], None] = _raise
        runs.on_changes = self._on_changes

    async def begin(self, outbox: Outbox) -> int:
        """Take over what the last process has left, and serve from now on; returns how much that was. Once."""
        if self._loop is not None:
            return 0
        self._loop, self._outbox = asyncio.get_running_loop(), outbox
        recovered = await self._runs.recover()
        self.spawn(self._forget_for_ever())
        return recovered

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task outside of any invocation. What it raises goes to `on_failure`."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._on_task_ended)
        return task

    def _on_task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_failure(error)

    def finish(self, timeout: float) -> None:
        """Begin no more turns and wait, up to `timeout` (0: no limit), until those under way have ended."""
        self._runs.is_stopping = True
        self._is_idle.wait(max(0.0, timeout - EXIT_TIMEOUT) if timeout else None)

    def result_of(self, run_id: str) -> asyncio.Future[Run]:
        """Return a future of a run's end. Call it before the run can end, and cancel it when nobody waits."""
        future: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        waiting = self._results.setdefault(run_id, [])
        waiting.append(future)

        def forget_it(_: asyncio.Future[Run]) -> None:
            waiting.remove(future)
            if not waiting and self._results.get(run_id) is waiting:
                del self._results[run_id]

        future.add_done_callback(forget_it)
        return future

    # What transactions have done

    def _on_changes(self, changes: Changes) -> None:
        """Hand over to the loop. On the storage thread."""
        if self._loop is not None:  # before that nothing is claimed, and nobody waits
            self._loop.call_soon_threadsafe(self._take, changes, context=Context())

    def _take(self, changes: Changes) -> None:
        for seq in changes.fenced:
            self.calls.end_all_of(seq)
            if seq in self._bodies:
                self._bodies[seq].cancel()
        self.calls.take(changes)
        for run in changes.ended:
            for future in tuple(self._results.get(run.id, ())):
                if not future.done():
                    future.set_result(run)
        for start in changes.turns:
            self._is_idle.clear()
            self.spawn(self._make(start))
        if changes.events and self._outbox is not None:
            self._outbox.offer(changes.events)
        self._set_timer(changes.due)

    def _set_timer(self, due: int | None) -> None:
        if due is None or (self._due is not None and self._due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        delay = min(self._longest_timer, max(0, due - self._clock()) / 1000)
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer, context=Context())

    def _on_timer(self) -> None:
        due, self._timer, self._due = self._due, None, None
        if due is not None and due > self._clock():
            self._set_timer(due)
        else:
            self.spawn(self._end_due())

    async def _end_due(self) -> None:
        while True:
            try:
                if not await self._runs.end_due():
                    return
            except InvocationError as error:
                if not error.retryable:
                    say(f"what is due cannot be read: {error}")
                    return
                await asyncio.sleep(STORAGE_RETRY_INTERVAL)

    async def _forget_for_ever(self) -> None:
        while True:
            try:
                while await self._runs.record(forget):
                    pass
            except InvocationError as error:
                say(f"ended runs could not be removed: {error}")
            await asyncio.sleep(FORGET_INTERVAL)

    # Bindings

    async def on_bound(self, flow: Flow) -> None:
        """Let the runs of a flow go on: those that were held, and those that were blocked by other code."""
        for turn in self.turns.values():
            if turn.run.target == flow.target and turn.run.code != flow.code:
                turn.is_stale = True
        self._runs.bound[flow.target] = flow.code
        for state in (State.HELD, State.BLOCKED):
            after: int | None = 0
            while after is not None:
                after = await self._runs.wake(flow.target, flow.code, state, after)

    def on_unbound(self, flow: Flow) -> None:
        """Let the runs of a function wait."""
        self._runs.bound.pop(flow.target, None)

    # Turns

    async def _make(self, start: TurnStart) -> None:
        former = self._bodies.get(start.run.seq)
        if former is not None:
            await asyncio.wait([former], timeout=FENCE_TIMEOUT)
        flow = self._flows.find(start.run.namespace, start.run.function_id)
        turn = Turn(start, continues=flow is not None and flow.continues)
        self.turns[start.run.id] = turn
        body = asyncio.get_running_loop().create_task(self.call_body(turn))
        self._bodies[start.run.seq] = body
        try:
            verdict, result = await body
            await self._settle(turn, verdict, result)
        except asyncio.CancelledError:
            if not body.cancelled():
                raise
        finally:
            if self.turns.get(start.run.id) is turn:
                del self.turns[start.run.id]
            if self._bodies.get(start.run.seq) is body:
                del self._bodies[start.run.seq]
            if not self._bodies:
                self._is_idle.set()

    async def call_body(self, turn: Turn) -> tuple[Verdict, Any]:
        """Call the function of a run; return how the call has ended, and what it has returned."""
        run = turn.run
        is_known = turn.start.is_whole and all(entry.state.is_ended for entry in turn.entries.values())
        sidecar = {
            "run": run.id,
            "turn": run.turn,
            "created": run.created,
            "journal": [_journal_line(entry) for entry in turn.entries.values() if entry.state.is_ended],
            # Whether a step that is not in `journal` is new, and may be made without asking first.
            "is_whole": is_known and run.cancel is None and not turn.is_check,
        }
        request: TriggerRequestInput = {
            "function_id": run.function_id,
            "payload": orjson.loads(turn.start.data),
            "namespace": run.namespace,
            "timeout_ms": NO_TIMEOUT,
            "metadata": {SIDECAR: sidecar},
            "trace": {"traceparent": run.traceparent},
        }
        try:
            return DONE, await self._worker.trigger_async(request)
        except InvocationError as error:
            if is_end_of_engine(error):
                await asyncio.sleep(ENGINE_END_TIMEOUT)
            return verdict_from(error, run.function_id), None

    async def _settle(self, turn: Turn, verdict: Verdict, result: Any) -> None:
        """Write down how a turn has ended. Until the storage has taken it the run keeps its slot."""
        while True:
            try:
                await self._write_end(turn, verdict, result)
                return
            except InvocationError as error:
                if error.code == FENCED:
                    return
                if not error.retryable:
                    say(f"the end of a turn of the run {turn.run.id} could not be written down: {error}")
                    return
            await asyncio.sleep(STORAGE_RETRY_INTERVAL)

    async def _write_end(self, turn: Turn, verdict: Verdict, result: Any) -> None:
        run, runs = turn.run, self._runs
        if turn.diverged is not None:
            await self._block(turn, turn.divergence())
        elif turn.is_broken:
            end = TurnEnd(State.PARKED, run.deaths, run.interrupted, STORAGE_DELAY_MS)
            await runs.suspend(run, turn.told, end, turn.status)
        elif verdict is DONE and said_by(result) == CANCELLED:
            await self._end(turn, None, {"code": "flow_cancelled", "message": "the run was cancelled"})
        elif turn.has_suspended or (verdict is DONE and said_by(result) == SUSPENDED):
            await runs.suspend(run, turn.told, None, turn.status)
        elif verdict.outcome is Outcome.DONE and verdict is DONE:
            await self._end(turn, result)
        elif runs.is_stopping:
            # The engine refuses calls of a flow worker that stops: the body may have raised just that.
            end = TurnEnd(State.PARKED, run.deaths, run.interrupted, RECOVERY_DELAY_MS)
            await runs.suspend(run, turn.told, end, turn.status)
        elif verdict.outcome in (Outcome.DONE, Outcome.FAILED) and not verdict.killed:
            await self._end(turn, None, verdict.error)
        else:
            await self._end_unasked(turn, verdict)

    async def _end(self, turn: Turn, result: Any, error: dict[str, Any] | None = None) -> None:
        """End a run with what its body has returned or raised, unless recorded steps were not asked for."""
        run, runs = turn.run, self._runs
        if error is not None and _is_unfit(error) and (turn.start.recorded or run.turn > 1):
            # The function has changed: its input fitted before.
            text = f"the input of the run {run.id} does not fit its function any more: {error.get('message')}"
            await self._block(turn, error_bytes("flow_changed", text, cause=error))
            return
        leftovers = turn.end()
        if leftovers is None:
            await self._block(turn, turn.divergence())
            return
        if error is None:
            try:
                value = encode(result, f"the result of the run {run.id}", runs.limits.value_bytes)
            except InvocationError as failure:
                if failure.code != LIMIT:
                    raise
                await runs.end(run, leftovers, result=b"null", error=error_bytes(LIMIT, failure.message))
                return
            await runs.end(run, leftovers, result=value, status=turn.status)
        else:
            await runs.end(run, leftovers, result=b"null", error=orjson.dumps(error), status=turn.status)

    async def _block(self, turn: Turn, error: bytes) -> None:
        """Stop a run whose body does not match its journal, unless other code is there to be tried already."""
        if turn.is_stale:
            await self._runs.suspend(turn.run, set(), None, turn.status)
        else:
            await self._runs.block(turn.run, error)

    async def _end_unasked(self, turn: Turn, verdict: Verdict) -> None:
        """Write down a turn that was interrupted, has died, or whose function is missing."""
        run, runs = turn.run, self._runs
        end = after_turn(verdict, run.deaths, run.interrupted, has_recorded=turn.has_recorded)
        if end.state is State.FAILED:
            text = (
                f"its worker has died {end.deaths} times in this run without a new step: {verdict.error.get('message')}"
            )
            error = error_bytes("flow_worker_died", text, cause=verdict.error)
            await runs.end(run, [], result=b"null", error=error, status=turn.status)
        elif end.state is State.BLOCKED:
            text = f"the run was interrupted {end.interrupted} times without a new step; `iii flow retry {run.id}`"
            await runs.block(run, error_bytes("flow_interrupted", text, cause=verdict.error), Event.INTERRUPTED)
        else:
            await runs.suspend(run, turn.told, end, turn.status)


def _raise(error: BaseException) -> None:
    raise error


def said_by(result: Any) -> str | None:
    """Return how a body of our own SDK says that it has ended before its end: SUSPENDED or CANCELLED."""
    return result.get(SIDECAR) if isinstance(result, dict) else None


def _is_unfit(error: dict[str, Any]) -> bool:
    return error.get("code") == "invalid_payload" and "stacktrace" not in error


def _journal_line(entry: Entry) -> dict[str, Any]:
    """A step as the SDK gets it with the call of a body."""
    return {**reply_from(entry), "kind": entry.kind, "function_id": entry.function_id}
