"""The functions with which a body makes its steps: `flow::call`, `begin`, `end`, `sleep`, `wait` and so on.

Each names its run and turn in `flow`. Bodies of our own SDK (`flow.inband`) get every answer as a value; others get the
result of the step, or an error of its outcome's code, and let the errors `flow_suspended`, `flow_cancelled` and
`flow_fenced` end them.
"""

from __future__ import annotations

import asyncio
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from iii import InvocationError
from stdlib_workers.flow import steps
from stdlib_workers.flow.bindings import Flow, Flows
from stdlib_workers.flow.dispatcher import Dispatcher
from stdlib_workers.flow.model import (
    CALL,
    CHILD,
    PATCH,
    SLEEP,
    START,
    STEP,
    WAIT,
    Ask,
    Entry,
    EntryState,
    Recorded,
    Run,
    Undo,
)
from stdlib_workers.flow.policy import CallOptions
from stdlib_workers.flow.runs import NewRun, Runs
from stdlib_workers.flow.schema import find_entry
from stdlib_workers.flow.transaction import FENCED, encode, end_entry, fenced
from stdlib_workers.flow.turn import DONE, SUSPENDED, Reply, Turn, recorded_from, reply_from, result_of
from stdlib_workers.values import Payload

# Where a turn can still be made anew when the storage has room again.
_BROKEN = ("storage_full", "storage_error", "overloaded")
MAX_NAME = 1024
MAX_SLEEP_MS = 100 * 366 * 86_400_000
# What the options of a call may say, and its limits.
_CALL_OPTIONS = {"max_retries": (0, 2**31), "backoff_ms": (0, 2**31), "timeout_ms": (1, 2**31)}
_MAC_BYTES = 16


class Operations:
    """The handlers, over the turns of a dispatcher. `park_ms`: how long a body waits for a call before it ends."""

    def __init__(
        self, dispatcher: Dispatcher, runs: Runs, flows: Flows, clock: Callable[[], int], park_ms: int, secret: bytes
    ) -> None:
        self._dispatcher = dispatcher
        self._calls = dispatcher.calls
        self._runs = runs
        self._flows = flows
        self._clock = clock
        self._park = park_ms / 1000
        self._secret = secret

    def handler(self, name: str) -> Callable[[Any], Awaitable[Any]]:
        """Return the handler of `flow::NAME`."""
        operation: Callable[[Turn, Payload], Awaitable[Reply]] = getattr(self, name)

        async def handle(payload: Any) -> Any:
            fields = Payload(f"flow::{name}", payload)
            flow = fields.get("flow")
            if not isinstance(flow, dict) or not isinstance(flow.get("turn"), int):
                text = f'flow::{name} is called by the function of a flow, with its metadata["iii.flow"] as `flow`'
                raise InvocationError("invalid_payload", text)
            turn = self._dispatcher.turns.get(str(flow.get("run")))
            if turn is None or turn.run.turn != flow["turn"]:
                reply: Reply = {"state": SUSPENDED}
                if not flow.get("inband"):
                    raise fenced(flow.get("run"), flow["turn"])
                return reply
            turn.replayed(fields.get("seen") or ())
            try:
                reply = await operation(turn, fields)
            except InvocationError as error:
                if error.code in _BROKEN:
                    turn.is_broken = True
                if flow.get("inband") and error.code in (*_BROKEN, FENCED):
                    return {"state": SUSPENDED}
                raise
            return reply if flow.get("inband") else result_of(reply)

        handle.__doc__ = operation.__doc__
        return handle

    async def _find(
        self,
        turn: Turn,
        fields: Payload,
        kind: str,
        name: str,
        function_id: str | None = None,
        *,
        key: str | None = None,
    ) -> tuple[str, Ask, Recorded | None] | None:
        """Return key, question and record of the step that is asked for; None when the body is to end."""
        if not name or len(name) > MAX_NAME:
            raise InvocationError("invalid_payload", f"a step's name has 1 to {MAX_NAME} characters, not {name!r}")
        branch, was, source = (fields.get(key) for key in ("branch", "was", "source"))
        ask = Ask(name, kind, function_id, branch or "", source, was)
        found = await turn.find(ask, key or fields.get("key"), self._park)
        if found is None:
            return None
        key, recorded = found
        if recorded is None and (turn.is_check or turn.is_stale):
            turn.suspend(ask.branch)
            return None
        return key, ask, recorded

    def _entry(self, turn: Turn, key: str, ask: Ask, state: EntryState = EntryState.OPEN) -> Entry:
        return Entry(
            turn.run.seq,
            key,
            ask.branch,
            0,
            ask.kind,
            state,
            ask.function_id,
            source=ask.source,
            code=turn.run.code,
            started=self._clock(),
        )

    async def _recorded(self, turn: Turn, key: str) -> Entry:
        """Return a recorded step, as it is now."""
        entry = turn.entries.get(key)
        if entry is None or not (entry.state.is_ended or turn.is_check):
            entry = await self._runs.record(lambda tx: find_entry(tx.connection, turn.run.seq, key))
            if entry is None:
                raise fenced(turn.run.id, turn.run.turn)
            turn.entries[key] = entry
        return entry

    def _status(self, turn: Turn) -> bytes | None:
        status, turn.status = turn.status, None
        return status

    # Calls

    async def call(self, turn: Turn, fields: Payload) -> Reply:
        """Call a function, or start a child run and wait for it; the outcome is recorded."""
        function_id = fields.string("function_id")
        namespace = fields.get("namespace") or turn.run.namespace
        flow = None if fields.get("queue") else self._flows.find(namespace, function_id)
        name = fields.get("name") or function_id
        found = await self._find(turn, fields, CALL if flow is None else CHILD, name, function_id)
        if found is None:
            return {"state": SUSPENDED}
        key, ask, recorded = found
        try:
            if recorded is not None:
                return await self._wait_for_call(turn, ask, await self._recorded(turn, key))
            options = _call_options(fields, namespace)
            entry = self._entry(turn, key, ask, EntryState.CALLING if flow is None else EntryState.OPEN)
            limits = self._runs.limits
            entry.payload = encode(fields.get("payload"), f"the payload of {function_id}", limits.value_bytes)
            entry.options = orjson.dumps(options) if options else None
            entry.undo = fields.get("undo")
            if flow is not None:
                return await self._call_flow(turn, ask, entry, flow)
            entry.attempt = 1
            return await self._make_call(turn, ask, entry, needs_begin="queue" in options)
        finally:
            turn.is_over(ask.branch, ask.name)

    async def _make_call(self, turn: Turn, ask: Ask, entry: Entry, *, needs_begin: bool) -> Reply:
        entry.undone = Undo.NONE if entry.undo is None else Undo.DUE
        place = entry.run, entry.key
        if place in self._calls:
            pass  # begun by a turn that has died meanwhile
        elif needs_begin or entry.undo is not None or turn.run.cancel is not None:
            written = await self._begin(turn, entry)
            if written is not entry or entry.state.is_ended:
                return await self._wait_for_call(turn, ask, written)
            self._calls.start(turn.run, entry)
        elif turn.run.turn > 1 and (former := await self._runs.record(lambda tx: find_entry(tx.connection, *place))):
            # An earlier turn had begun the call, and it has ended since this one began.
            turn.keep(former)
            return await self._wait_for_call(turn, ask, former)
        future = self._calls.expect(place)
        if not entry.n:
            self._calls.start(turn.run, entry)
        ended = await self._within(future, place)
        if ended is not None:
            turn.keep(ended)
            return reply_from(ended)
        # The body ends here, the call goes on: it must be found by the next process.
        return await self._wait_for_call(turn, ask, entry if entry.n else await self._begin(turn, entry), is_last=True)

    async def _begin(self, turn: Turn, entry: Entry) -> Entry:
        status = self._status(turn)
        number = turn.run.turn
        written = await self._runs.record(lambda tx: steps.begin(tx, number, entry, status))
        turn.keep(written)
        return written

    async def _wait_for_call(self, turn: Turn, ask: Ask, entry: Entry, *, is_last: bool = False) -> Reply:
        """Wait for a step that has begun, but not longer than a body should."""
        if entry.state.is_ended:
            return reply_from(entry)
        place = entry.run, entry.key
        is_soon = entry.state is not EntryState.RETRYING or (entry.due or 0) - self._clock() < self._park * 1000
        if not is_last and is_soon and not turn.is_check:
            future = self._calls.expect(place)
            # It may have ended before anybody expected it.
            current = await self._runs.record(lambda tx: find_entry(tx.connection, *place))
            if current is not None and current.state.is_ended:
                self._calls.drop(place, future)
                turn.keep(current)
                return reply_from(current)
            ended = await self._within(future, place)
            if ended is not None:
                turn.keep(ended)
                return reply_from(ended)
        return turn.wait_for(ask.branch, entry.key)

    async def _within(self, future: asyncio.Future[Entry], place: tuple[int, str]) -> Entry | None:
        try:
            return await asyncio.wait_for(future, self._park)
        except TimeoutError:
            return None
        finally:
            self._calls.drop(place, future)

    async def _call_flow(self, turn: Turn, ask: Ask, entry: Entry, flow: Flow) -> Reply:
        entry.undone = Undo.NONE
        future = self._calls.expect((entry.run, entry.key))
        try:
            await self._start_child(turn, entry, flow, f"{turn.run.id}/{entry.key}")
        finally:
            self._calls.drop((entry.run, entry.key), future)
        return await self._wait_for_call(turn, ask, await self._recorded(turn, entry.key))

    async def _start_child(self, turn: Turn, entry: Entry, flow: Flow, run_id: str) -> tuple[Run, bool]:
        new = NewRun(
            run_id,
            flow.function_id,
            flow.namespace,
            entry.payload or b"null",
            turn.run.traceparent,
            flow.timeout_ms,
            flow.code,
        )
        started = await self._runs.start(new, (turn.run.seq, turn.run.turn, entry))
        turn.has_recorded = True
        turn.journal.add(recorded_from(entry))
        return started

    async def start(self, turn: Turn, fields: Payload) -> Reply:
        """Start a run that goes on by itself; the step's result is `{run, started}`."""
        function_id = fields.string("function_id")
        found = await self._find(turn, fields, START, fields.get("name") or function_id, function_id)
        if found is None:
            return {"state": SUSPENDED}
        key, ask, recorded = found
        try:
            if recorded is not None:
                return reply_from(await self._recorded(turn, key))
            flow = self.flow_of(fields.get("namespace") or turn.run.namespace, function_id)
            entry = self._entry(turn, key, ask)
            limit = self._runs.limits.value_bytes
            entry.payload = encode(fields.get("payload"), f"the input of {function_id}", limit)
            run_id = fields.get("id") or f"{turn.run.id}/{key}"
            end_entry(entry, self._clock(), value=orjson.dumps({"run": run_id}))
            await self._start_child(turn, entry, flow, run_id)
            return reply_from(await self._recorded(turn, key))
        finally:
            turn.is_over(ask.branch, ask.name)

    def flow_of(self, namespace: str | None, function_id: str) -> Flow:
        """Return a registered flow. InvocationError `flow_not_found`."""
        flow = self._flows.find(namespace, function_id)
        if flow is None:
            names = ", ".join(sorted(flow.function_id for flow in self._flows)) or "none"
            text = f"{function_id} is no flow: no worker has bound it to the trigger type flow. There are: {names}"
            raise InvocationError("flow_not_found", text)
        return flow

    # Steps that the body makes itself

    async def begin(self, turn: Turn, fields: Payload) -> Reply:
        """Say whether a step is recorded: `{done, result?}` for SDKs that know no flows."""
        name = fields.string("name")
        found = await self._find(turn, fields, STEP, name)
        if found is None:
            return {"state": SUSPENDED}
        key, ask, recorded = found
        if recorded is not None:
            entry = await self._recorded(turn, key)
            if entry.state.is_ended:
                turn.is_over(ask.branch, name)
                reply = reply_from(entry)
                return reply if reply["state"] != DONE or _inband(fields) else _begun(True, reply["value"])
        elif fields.get("undo") is not None or turn.run.cancel is not None:
            entry = self._entry(turn, key, ask)
            entry.undo = fields.get("undo")
            entry.undone = Undo.NONE if entry.undo is None else Undo.DUE
            entry.payload = encode(fields.get("payload"), f"the input of {name}", self._runs.limits.value_bytes)
            if entry.undo is not None or not await self._has_heard(turn, ask.branch):
                entry = await self._begin(turn, entry)
            if entry.state.is_ended:
                turn.is_over(ask.branch, name)
                return reply_from(entry)
        turn.local[ask.branch, name] = key
        return {"state": "new", "key": key} if _inband(fields) else _begun(False)

    async def _has_heard(self, turn: Turn, branch: str) -> bool:
        return await self._runs.record(lambda tx: steps.has_heard(tx, turn.run.seq, branch))

    async def end(self, turn: Turn, fields: Payload) -> Reply:
        """Record what a step that has begun has returned or, with `error`, raised; it is the result."""
        name, branch = fields.string("name"), fields.get("branch") or ""
        key = turn.local.pop((branch, name), None)
        ask = Ask(name, STEP, None, branch, fields.get("source"))
        if key is None and _inband(fields):
            # The body knew that the step was new, and did not ask.
            found = await turn.find(ask, fields.string("key"), self._park)
            if found is None:
                return {"state": SUSPENDED}
            key, recorded = found
            if recorded is not None:
                return reply_from(await self._recorded(turn, key))
        elif key is None:
            raise InvocationError("invalid_payload", f"the step {name!r} has not begun; call flow::begin first")
        try:
            entry, now, limits = self._entry(turn, key, ask), self._clock(), self._runs.limits
            error = fields.get("error")
            if error is None:
                result = encode(fields.get("result"), f"the result of the step {name}", limits.value_bytes)
                end_entry(entry, now, value=result)
            else:
                body = error if isinstance(error, dict) else {"code": "invocation_failed", "message": str(error)}
                end_entry(entry, now, error=encode(body, f"the error of the step {name}", limits.value_bytes))
            return {**await self._write(turn, entry), "is_stale": turn.is_stale}
        finally:
            turn.is_over(branch, name)

    async def _write(self, turn: Turn, entry: Entry) -> Reply:
        status, number = self._status(turn), turn.run.turn
        written = await self._runs.record(lambda tx: steps.record(tx, number, entry, status))
        turn.keep(written)
        return reply_from(written)

    # Waiting

    async def sleep(self, turn: Turn, fields: Payload) -> Reply:
        """Go on at a time: `until_ms` since the epoch, or after `ms`."""
        is_absolute = fields.get("until_ms") is not None
        due = _milliseconds(fields, "until_ms") if is_absolute else self._clock() + _milliseconds(fields, "ms")
        return await self._wait(turn, fields, SLEEP, fields.get("name") or "sleep", due, {})

    async def wait(self, turn: Turn, fields: Payload) -> Reply:
        """Take the first unread event of these names, or wait for one."""
        events = fields.get("event")
        events = [events] if isinstance(events, str) else events
        if not isinstance(events, list) or not events or not all(isinstance(event, str) and event for event in events):
            raise InvocationError("invalid_payload", "flow::wait needs the name of an event, or a list of names")
        has_timeout = fields.get("timeout_ms") is not None
        due = self._clock() + _milliseconds(fields, "timeout_ms") if has_timeout else None
        options = {"events": events, **({"default": fields.get("default")} if "default" in fields else {})}
        return await self._wait(turn, fields, WAIT, fields.get("name") or "|".join(events), due, options)

    async def _wait(
        self, turn: Turn, fields: Payload, kind: str, name: str, due: int | None, options: dict[str, Any]
    ) -> Reply:
        found = await self._find(turn, fields, kind, name)
        if found is None:
            return {"state": SUSPENDED}
        key, ask, recorded = found
        try:
            if recorded is not None:
                entry = await self._recorded(turn, key)
            else:
                entry = self._entry(turn, key, ask)
                entry.due = due
                entry.options = encode(options, "the default", self._runs.limits.value_bytes) if options else None
                entry = await self._begin(turn, entry)
            return reply_from(entry) if entry.state.is_ended else turn.wait_for(ask.branch, key)
        finally:
            turn.is_over(ask.branch, ask.name)

    # The rest

    async def patched(self, turn: Turn, fields: Payload) -> Reply:
        """Say whether a run takes new code: true unless it had gone past this place before the code was new."""
        name, branch = fields.string("name"), fields.get("branch") or ""
        key = f"{branch}/patch:{name}" if branch else f"patch:{name}"
        if turn.journal.is_past(key, branch):
            return {"state": DONE, "key": key, "value": False, "at": None}
        found = await self._find(turn, fields, PATCH, f"patch:{name}", key=key)
        if found is None:
            return {"state": SUSPENDED}
        _, ask, recorded = found
        if recorded is not None:
            return reply_from(await self._recorded(turn, key))
        entry = self._entry(turn, key, ask)
        end_entry(entry, self._clock(), value=b"true")
        return await self._write(turn, entry)

    async def status(self, turn: Turn, fields: Payload) -> Reply:
        """Show a value in `flow::get`: written with the next step."""
        turn.status = encode(fields.get("status"), "the status", self._runs.limits.value_bytes)
        return _said(None)

    async def seen(self, *_: Any) -> Reply:
        """Take note of recorded steps that the body has read, before it ends; as every operation does."""
        return _said(None)

    async def token(self, turn: Turn, fields: Payload) -> Reply:
        """Return an unguessable text that stands for the run and an event in `flow::signal`."""
        return _said(self.token_for(turn.run.id, fields.string("event")))

    def token_for(self, run_id: str, event: str) -> str:
        """Return the token of an event of a run."""
        text = orjson.dumps([run_id, event])
        mac = hmac.digest(self._secret, text, "sha256")[:_MAC_BYTES]
        return urlsafe_b64encode(mac + text).decode().rstrip("=")

    def read_token(self, token: Any) -> tuple[str, str]:
        """Return run and event of a token. InvocationError `invalid_token`."""
        try:
            data = urlsafe_b64decode(f"{token}{'=' * (-len(token) % 4)}")
            if hmac.compare_digest(
                hmac.digest(self._secret, data[_MAC_BYTES:], "sha256")[:_MAC_BYTES], data[:_MAC_BYTES]
            ):
                run_id, event = orjson.loads(data[_MAC_BYTES:])
                return run_id, event
        except (ValueError, TypeError):
            pass
        raise InvocationError("invalid_token", "the token stands for no event; it comes from flow.token") from None

    async def again(self, turn: Turn, fields: Payload) -> Reply:
        """Begin the run anew with another input and an empty journal; unread events stay."""
        data = encode(fields.get("input"), "the input", self._runs.limits.value_bytes)
        turn.suspend("")
        await self._runs.again(turn.run, data)
        return {"state": SUSPENDED}


def _inband(fields: Payload) -> bool:
    return bool(fields.get("flow").get("inband"))


def _begun(is_done: bool, result: Any = None) -> Reply:
    return _said({"done": True, "result": result} if is_done else {"done": False})


def _said(value: Any) -> Reply:
    return {"state": DONE, "key": None, "value": value, "at": None}


def _call_options(fields: Payload, namespace: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, (least, most) in _CALL_OPTIONS.items():
        value = fields.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InvocationError(
                "invalid_payload", f"{name} of a step is an integer from {least} to {most}, not {value!r}"
            )
        options[name] = value
    if fields.get("queue"):
        options["queue"] = fields.string("queue")
    if fields.get("namespace"):
        options["namespace"] = namespace
    CallOptions(**options)
    return options


def _milliseconds(fields: Payload, name: str) -> int:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SLEEP_MS:
        text = f"{name} of a step is a number of milliseconds from 0 to {MAX_SLEEP_MS}, not {value!r}"
        raise InvocationError("invalid_payload", text)
    return round(value)
