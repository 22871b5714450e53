"""Makes the attempts of steps that call functions, and of undo functions, and writes down how each has ended."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from iii import InvocationError, TriggerAction, TriggerRequestInput
from stdlib_workers.attempts import DONE, Outcome, Verdict, is_end_of_engine, timed_out, verdict_from
from stdlib_workers.events import Caller
from stdlib_workers.flow import ends, steps
from stdlib_workers.flow.model import CALL, Entry, EntryState, Run, Undo
from stdlib_workers.flow.policy import MIN_UNDO_ATTEMPTS, CallOptions, after_attempt, is_unanswered
from stdlib_workers.flow.runs import Runs
from stdlib_workers.flow.transaction import LIMIT, Changes, Transaction, encode, end_entry

# The key of the metadata under which a handler finds its step's key.
SIDECAR = "iii.flow"
# A call without a timeout would get the engine's own, of seconds. More than 24 days no worker can wait.
NO_TIMEOUT = 20 * 86_400_000
# A process that has lost the engine lives for half a second at most.
ENGINE_END_TIMEOUT = 5.0
STORAGE_RETRY_INTERVAL = 0.2
# Attempts under way at once; more wait until they are due again.
MAX_ATTEMPTS = 1024
MAX_UNDOING = 64

Place = tuple[int, str]


class Calls:
    """The attempts under way. `spawn` starts a coroutine as a task of the loop.

    Those who wait for a step get it, or an error that was not recorded, when its transaction is durable.
    """

    def __init__(
        self,
        caller: Caller,
        runs: Runs,
        clock: Callable[[], int],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        noise: Callable[[], float] = random.random,
    ) -> None:
        self._caller = caller
        self._runs = runs
        self._clock = clock
        self._spawn = spawn
        self._noise = noise
        self._tasks: dict[Place, tuple[int, asyncio.Task[None]]] = {}  # with the number of the attempt
        self._waiters: dict[Place, list[asyncio.Future[Entry]]] = {}
        self._undoing: dict[int, asyncio.Task[None]] = {}
        self._permits = asyncio.Semaphore(MAX_UNDOING)
        runs.max_calls = lambda: max(0, MAX_ATTEMPTS - len(self._tasks))

    def __contains__(self, place: Place) -> bool:
        return place in self._tasks

    def take(self, changes: Changes) -> None:
        """Go on with what a transaction has ended, or made due."""
        for entry in changes.steps:
            self.on_ended(entry)
        for run, entry in changes.calls:
            self.start(run, entry)
        for run in changes.undoing:
            self.undo(run)

    def start(self, run: Run, entry: Entry) -> None:
        """Make an attempt, unless this very one is under way; the task of the one before may be about to end."""
        place = entry.run, entry.key
        if place in self._tasks and self._tasks[place][0] == entry.attempt:
            return
        task = self._spawn(self._attempt(run, entry))
        current = self._tasks[place] = (entry.attempt, task)
        task.add_done_callback(lambda _: self._tasks.pop(place, None) if self._tasks.get(place) is current else None)

    def expect(self, place: Place) -> asyncio.Future[Entry]:
        """Return a future of a step's end. Call it before the step can end, and `drop` it when nobody waits."""
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(place, []).append(future)
        return future

    def drop(self, place: Place, future: asyncio.Future[Entry]) -> None:
        """Wait no more."""
        waiters = self._waiters.get(place, [])
        if future in waiters:
            waiters.remove(future)
        if not waiters:
            self._waiters.pop(place, None)

    def on_ended(self, entry: Entry) -> None:
        """Tell those who wait for a step that it has ended."""
        for future in self._waiters.pop((entry.run, entry.key), ()):
            if not future.done():
                future.set_result(entry)

    def _refuse(self, place: Place, error: InvocationError) -> None:
        for future in self._waiters.pop(place, ()):
            if not future.done():
                future.set_exception(error)

    def end_all_of(self, seq: int) -> None:
        """Cancel the attempts of a run: their callees hear of it."""
        for place in [place for place in self._tasks if place[0] == seq]:
            self._tasks.pop(place)[1].cancel()

    # Attempts

    async def _attempt(self, run: Run, entry: Entry) -> None:
        options = options_from(entry)
        if options.queue is not None:
            # A job waits for its turn as long as its queue lets it.
            options = replace(options, timeout_ms=NO_TIMEOUT)
        request = _request_for(run, entry, options)
        verdict, result = await self._call(request, entry.function_id or "", options)
        limits, error = self._runs.limits, None
        ended = replace(entry, due=None)
        if verdict.outcome is Outcome.DONE:
            try:
                value = encode(result, f"the result of {entry.function_id}", limits.value_bytes)
                end_entry(ended, self._clock(), value=value)
            except (InvocationError, TypeError) as failure:
                error = failure if isinstance(failure, InvocationError) else InvocationError(LIMIT, str(failure))
                end_entry(ended, self._clock(), error=_body_bytes({"code": error.code, "message": error.message}))
            ended.undone = Undo.NONE if entry.undo is None else Undo.DUE
        else:
            following = after_attempt(verdict, entry.spent, options, self._noise())
            ended.spent += following.is_spent
            if following.delay_ms is not None:
                ended.state, ended.due = EntryState.RETRYING, self._clock() + following.delay_ms
            else:
                end_entry(ended, self._clock(), error=_body_bytes(verdict.error))
                is_due = entry.undo is not None and is_unanswered(verdict)
                ended.undone = Undo.DUE if is_due else Undo.NONE
        if error is not None and not entry.n:
            self._refuse((entry.run, entry.key), error)  # nothing is written of it
            return
        await self._write(lambda tx: steps.end_call(tx, run.life, ended), (entry.run, entry.key))

    async def _call(self, request: TriggerRequestInput, function_id: str, options: CallOptions) -> tuple[Verdict, Any]:
        """Return how a call has ended, and its result."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            return DONE, await self._caller.trigger_async(request)
        except InvocationError as error:
            if is_end_of_engine(error):
                # Nothing is written down: the next start repeats the call.
                await asyncio.sleep(ENGINE_END_TIMEOUT)
            verdict = verdict_from(error, function_id)
            if loop.time() - began_at >= options.timeout_ms / 1000:
                verdict = timed_out(verdict, function_id, options.timeout_ms)
            if verdict.outcome is Outcome.DONE:
                # It has returned what cannot be kept. A job has then done its work; a step has no result.
                verdict = Verdict(Outcome.FAILED, verdict.error)
            return verdict, None

    async def _write(self, work: Callable[[Transaction], Any], place: Place) -> None:
        """Write the end of an attempt. Until the storage has taken it the step has not ended."""
        while True:
            try:
                await self._runs.transact(work)
                return
            except InvocationError as error:
                if error.code == LIMIT:
                    self._refuse(place, error)
                    return
                if not error.retryable:
                    say(f"the end of the step {place[1]} could not be written down: {error}")
                    return
            await asyncio.sleep(STORAGE_RETRY_INTERVAL)

    # Undoing

    def undo(self, run: Run) -> None:
        """Undo the steps of a run that has failed or was cancelled, latest first."""
        if run.seq not in self._undoing:
            task = self._undoing[run.seq] = self._spawn(self._undo(run))
            task.add_done_callback(lambda _: self._undoing.pop(run.seq, None))

    async def _undo(self, run: Run) -> None:
        while entries := await self._runs.record(lambda tx: ends.undo_steps(tx, run.seq)):
            entry = entries[0]
            error = await self._undo_step(run, entry)
            await self._write(partial(ends.undone, seq=run.seq, key=entry.key, error=error), (run.seq, entry.key))
            if error is not None:
                return

    async def _undo_step(self, run: Run, entry: Entry) -> bytes | None:
        """Call an undo function until it has succeeded; return the error of the last attempt if none has."""
        function_id, spent = entry.undo or "", 0
        options = replace(options_from(entry), queue=None)
        result = orjson.loads(entry.value) if entry.state is EntryState.DONE and entry.value else None
        payload = {"input": orjson.loads(entry.payload or b"null"), "result": result}
        request = _request(run, function_id, payload, f"{run.id}/{entry.key}/undo", options)
        while True:
            async with self._permits:
                verdict, _ = await self._call(request, function_id, options)
            if verdict.outcome is Outcome.DONE:
                return None
            attempts = max(MIN_UNDO_ATTEMPTS, options.attempts)
            following = after_attempt(verdict, spent, options, self._noise(), attempts=attempts)
            spent += following.is_spent
            if following.delay_ms is None:
                return _body_bytes(verdict.error)
            await asyncio.sleep(following.delay_ms / 1000)


def options_from(entry: Entry) -> CallOptions:
    """Return how a step calls its function."""
    return CallOptions(**orjson.loads(entry.options)) if entry.kind == CALL and entry.options else CallOptions()


def _request_for(run: Run, entry: Entry, options: CallOptions) -> TriggerRequestInput:
    payload, key = orjson.loads(entry.payload or b"null"), f"{run.id}/{entry.key}"
    request = _request(run, entry.function_id or "", payload, key, options)
    request["metadata"][SIDECAR]["attempt"] = entry.attempt
    if options.queue is not None:
        # The queue makes the attempts. A repeat by the key gets the result of the first.
        del request["awaits_end"]
        request["action"] = TriggerAction.of("enqueue", queue=options.queue, wait=True, key=key)
    return request


def _request(run: Run, function_id: str, payload: Any, key: str, options: CallOptions) -> TriggerRequestInput:
    return {
        "function_id": function_id,
        "payload": payload,
        "timeout_ms": options.timeout_ms,
        "namespace": options.namespace or run.namespace,
        "metadata": {SIDECAR: {"run": run.id, "key": key}},
        "trace": {"traceparent": run.traceparent},
        # Nothing can stop a thread: the next attempt begins when this one has really ended.
        "awaits_end": True,
    }


def _body_bytes(error: dict[str, Any]) -> bytes:
    return orjson.dumps({name: error[name] for name in ("code", "message", "details", "stacktrace") if name in error})


def say(text: str) -> None:
    """Write a line to the engine's log."""
    sys.stderr.write(f"{text}\n")
