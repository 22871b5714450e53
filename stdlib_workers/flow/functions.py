"""The functions `flow::*` for everybody: start, look, signal, cancel, and so on. What bodies call: `operations`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from iii import InvocationError, Worker, current_invocation
from iii.declarations import load_declarations
from stdlib_workers.events.bindings import current_trace, new_trace
from stdlib_workers.flow import ends, steps
from stdlib_workers.flow.bindings import value_at
from stdlib_workers.flow.dispatcher import Dispatcher
from stdlib_workers.flow.model import Entry, EntryState, Run, State, Undo
from stdlib_workers.flow.operations import Operations
from stdlib_workers.flow.runs import NewRun, Runs, turn_start
from stdlib_workers.flow.schema import read_input, select_entries, select_runs
from stdlib_workers.flow.transaction import Transaction, TurnStart, encode
from stdlib_workers.flow.turn import Turn, recorded_from
from stdlib_workers.values import Payload

DECLARED = load_declarations(Path(__file__).parent)
OPERATIONS = ("call", "begin", "end", "sleep", "wait", "patched", "status", "seen", "token", "again")
MAX_ID = 1024
MAX_PAGE = 1000


class Functions:
    """The handlers, over the runs of one store."""

    def __init__(self, runs: Runs, dispatcher: Dispatcher, operations: Operations) -> None:
        self._runs = runs
        self._dispatcher = dispatcher
        self._operations = operations

    def handlers(self) -> dict[str, Callable[..., Any]]:
        """Return the handlers by function id."""
        own = ("result", "signal", "cancel", "retry", "fork", "check", "list", "get", "export", "start")
        found = {f"flow::{name}": getattr(self, name) for name in own}
        return found | {f"flow::{name}": self._operations.handler(name) for name in OPERATIONS}

    # Starting

    async def action(self, payload: Any) -> dict[str, Any]:
        """Start a run of a call that was made with the action `flow`; its receipt is the run."""
        action = payload.get("action") or {}
        unknown = sorted(set(action) - {"type", "id", "timeout_ms"})
        if unknown:
            raise InvocationError(
                "invalid_payload", f"the action flow has no option {unknown[0]}; there are id, timeout_ms"
            )
        trace = payload.get("traceparent")
        fields = {
            "function_id": payload.get("function_id"),
            "payload": payload.get("data"),
            "namespace": payload.get("namespace"),
            "id": action.get("id"),
            "timeout_ms": action.get("timeout_ms"),
        }
        run, started = await self._start(Payload("action::flow", fields), trace)
        return {"run": run.id, "started": started}

    async def start(self, payload: Any) -> Any:
        """Start a run, and wait for its result if `wait`; with `flow`, as a step of a body that goes on meanwhile."""
        fields = Payload("flow::start", payload)
        if fields.get("flow") is not None:
            return await self._operations.handler("start")(payload)
        is_waited = bool(fields.get("wait"))
        run, started = await self._start(fields, current_trace().get("traceparent"))
        return await self._result(run.id) if is_waited else {"run": run.id, "started": started}

    async def _start(self, fields: Payload, traceparent: str | None) -> tuple[Run, bool]:
        flow = self._operations.flow_of(_namespace(fields), fields.string("function_id"))
        data = encode(fields.get("payload"), f"the input of {flow.function_id}", self._runs.limits.value_bytes)
        run_id = fields.get("id")
        if run_id is None and flow.id_field is not None:
            run_id = value_at(fields.get("payload"), flow.id_field)
            if run_id is None:
                text = f"the input of {flow.function_id} has no {flow.id_field}, which names its run"
                raise InvocationError("invalid_payload", text)
        if run_id is None:
            run_id = fields.get("job_id")
        run_id = str(uuid4()) if run_id is None else _run_id(run_id)
        timeout_ms = fields.integer("timeout_ms", flow.timeout_ms, 1, 2**53)
        trace = traceparent or new_trace()["traceparent"]
        new = NewRun(run_id, flow.function_id, flow.namespace, data, trace, timeout_ms, flow.code)
        return await self._runs.start(new)

    # Results

    async def result(self, payload: Any) -> Any:
        """Wait for the end of a run and return its result; its error is the caller's."""
        return await self._result(Payload("flow::result", payload).string("run"))

    async def _result(self, run_id: str) -> Any:
        future = self._dispatcher.result_of(run_id)
        try:
            run = await self._runs.record(lambda tx: steps.existing(tx, run_id))
            if not run.state.is_ended:
                run = await future
        finally:
            future.cancel()
        if run.state is State.COMPLETED:
            return orjson.loads(run.result or b"null")
        error = orjson.loads(run.error or b"{}") or {}
        details = {**(error.get("details") or {}), "run": run_id, "state": run.state.name.lower()}
        raise InvocationError(error.get("code") or "UNKNOWN", error.get("message") or "", details=details)

    # Events and control

    async def signal(self, payload: Any) -> dict[str, Any]:
        """Send an event to a run: by `run` and `event`, by `token`, or as a trigger whose metadata names both."""
        invocation = current_invocation()
        metadata = None if invocation is None else invocation.metadata
        if isinstance(metadata, dict) and "event" in metadata and "run_field" in metadata:
            run_id, event = value_at(payload, str(metadata["run_field"])), metadata["event"]
            if run_id is None:
                text = f"the event has no {metadata['run_field']}, which names the run"
                raise InvocationError("invalid_payload", text)
            run_id, content, id = _run_id(run_id), payload, None
        else:
            fields = Payload("flow::signal", payload)
            if fields.get("token") is not None:
                run_id, event = self._operations.read_token(fields.get("token"))
            else:
                run_id, event = fields.string("run"), fields.string("event")
            content, id = fields.get("payload"), fields.get("id")
        if not isinstance(event, str) or not event:
            raise InvocationError("invalid_payload", f"an event's name is a text, not {event!r}")
        data = encode(content, f"the event {event}", self._runs.limits.value_bytes)
        return await self._runs.transact(
            lambda tx: steps.signal(tx, run_id, event, data, None if id is None else str(id))
        )

    async def cancel(self, payload: Any) -> dict[str, Any]:
        """Cancel a run."""
        fields = Payload("flow::cancel", payload)
        run_id, reason, force = fields.string("run"), fields.get("reason"), bool(fields.get("force"))

        def work(tx: Transaction) -> dict[str, Any]:
            run = steps.existing(tx, run_id)
            if run.state.is_ended:
                text = f"the run {run_id} is {run.state.name.lower()} already"
                raise InvocationError("run_ended", text)
            if run.state is not State.UNDOING:
                ends.cancel(tx, run, ends.CANCEL, reason, force=force)
            return {"run": run_id, "state": run.state.name.lower()}

        return await self._runs.transact(work)

    async def retry(self, payload: Any) -> dict[str, Any]:
        """Let a failed or blocked run go on."""
        run_id = Payload("flow::retry", payload).string("run")
        state = await self._runs.transact(lambda tx: ends.retry(tx, run_id))
        return {"run": run_id, "state": state.name.lower()}

    async def fork(self, payload: Any) -> dict[str, Any]:
        """Start a run with the steps that another one made before a step."""
        fields = Payload("flow::fork", payload)
        new_id = str(uuid4()) if fields.get("id") is None else _run_id(fields.get("id"))
        run = await self._runs.fork(fields.string("run"), fields.string("from"), new_id)
        return {"run": run.id}

    # Looking

    async def list(self, payload: Any) -> dict[str, Any]:
        """List runs, the newest first."""
        fields = Payload("flow::list", payload or {})
        limit = fields.integer("limit", 50, 1, MAX_PAGE) or 50
        before = fields.get("cursor")
        where = ["seq < ?"]
        values: list[Any] = [int(before) if before is not None else 2**62]
        if fields.get("state") is not None:
            names = fields.get("state") if isinstance(fields.get("state"), list) else [fields.get("state")]
            known = [state.name.lower() for state in State]
            if wrong := [name for name in names if name not in known]:
                raise InvocationError(
                    "invalid_payload", f"a run's state is one of {', '.join(known)}, not {wrong[0]!r}"
                )
            where.append(f"state IN ({', '.join('?' * len(names))})")
            values += [int(State[name.upper()]) for name in names]
        if fields.get("function_id") is not None:
            where.append("function_id = ?")
            values.append(fields.string("function_id"))
        condition = f"{' AND '.join(where)} ORDER BY seq DESC LIMIT ?"
        found = await self._runs.record(lambda tx: [*select_runs(tx.connection, condition, (*values, limit + 1))])
        page = found[:limit]
        cursor = str(page[-1].seq) if len(found) > limit else None
        return {"runs": [_row(run) for run in page], "cursor": cursor}

    async def get(self, payload: Any) -> dict[str, Any]:
        """Return a run with its journal."""
        return await self._shown(Payload("flow::get", payload).string("run"), with_values=False)

    async def export(self, payload: Any) -> dict[str, Any]:
        """Return a run with its journal and all values: what `flow::check` takes."""
        return await self._shown(Payload("flow::export", payload).string("run"), with_values=True)

    async def _shown(self, run_id: str, *, with_values: bool) -> dict[str, Any]:
        def work(tx: Transaction) -> dict[str, Any]:
            run = steps.existing(tx, run_id)
            journal = select_entries(tx.connection, "run = ? ORDER BY n", (run.seq,))
            unread = tx.connection.execute(
                "SELECT event FROM signals WHERE run = ? AND taken IS NULL ORDER BY seq LIMIT 100", (run.seq,)
            ).fetchall()
            shown = {**_row(run), "turn": run.turn, "code": run.code, "unread": [event for (event,) in unread]}
            shown["input"] = orjson.loads(read_input(tx.connection, run))
            if run.result is not None:
                shown["result"] = orjson.loads(run.result)
            shown["steps"] = [_step(entry, with_values=with_values) for entry in journal]
            return shown

        return await self._runs.record(work)

    async def check(self, payload: Any) -> dict[str, Any]:
        """Call a flow's function against a journal, making no step; say whether they match."""
        fields = Payload("flow::check", payload)
        if fields.get("journal") is None:
            run_id = fields.string("run")
            start = await self._runs.record(lambda tx: turn_start(tx, steps.existing(tx, run_id), limit=None))
        else:
            start = _start_from(fields.get("journal"))
        run = start.run
        flow = self._operations.flow_of(run.namespace, run.function_id)
        run.id, run.turn, run.code, run.cancel = f"check:{uuid4()}", 0, flow.code, None
        turn = Turn(start, continues=flow.continues, is_check=True)
        self._dispatcher.turns[run.id] = turn
        try:
            verdict, _ = await self._dispatcher.call_body(turn)
        finally:
            del self._dispatcher.turns[run.id]
        leftovers: list[str] | None = []
        if turn.diverged is None:
            # Of a body that waits, too, the steps behind must have been asked for: it goes on from there.
            leftovers = turn.end()
        if turn.diverged is not None:
            return {"ok": False, "error": orjson.loads(turn.divergence())}
        error = None if turn.has_suspended or not verdict.error else verdict.error
        return {"ok": error is None or bool(error.get("stacktrace")), "error": error, "leftovers": leftovers or []}


def register_functions(worker: Worker, functions: Functions) -> None:
    """Register all functions, and the action `flow`."""
    worker.register_trigger_action(
        "flow",
        functions.action,
        description="Start a run of a flow; options: id, timeout_ms.",
        **DECLARED.functions["action::flow"],
    )
    for function_id, handler in functions.handlers().items():
        worker.register_function(function_id, handler, **DECLARED.functions[function_id])


def _namespace(fields: Payload) -> str | None:
    namespace = fields.get("namespace")
    return None if namespace == "default" else namespace


def _run_id(value: Any) -> str:
    is_scalar = isinstance(value, str | int) and not isinstance(value, bool)
    if not is_scalar or not 0 < len(str(value)) <= MAX_ID:
        raise InvocationError("invalid_payload", f"a run's id is a text of 1 to {MAX_ID} characters, not {value!r}")
    return str(value)


def _row(run: Run) -> dict[str, Any]:
    row = {
        "run": run.id,
        "function_id": run.function_id,
        "namespace": run.namespace or "default",
        "state": run.state.name.lower(),
        "created": run.created,
        "due": run.due,
        "deadline": run.deadline,
        "ended": run.ended,
        "step_count": run.steps,
        "traceparent": run.traceparent,
        "status": None if run.status is None else orjson.loads(run.status),
        "cancel": None if run.cancel is None else orjson.loads(run.cancel),
        "error": None if run.error is None else orjson.loads(run.error),
    }
    return {key: value for key, value in row.items() if value is not None}


def _step(entry: Entry, *, with_values: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "key": entry.key,
        "n": entry.n,
        "kind": entry.kind,
        "state": entry.state.name.lower(),
        "function_id": entry.function_id,
        "attempt": entry.attempt or None,
        "failures": entry.spent or None,
        "due": entry.due,
        "undo": entry.undo,
        "undone": entry.undone.name.lower() if entry.undone is not Undo.NONE else None,
        "leftover": True if entry.leftover else None,
        "at": entry.source,
        "code": entry.code or None,
        "started": entry.started,
        "ended": entry.ended,
        "error": None if entry.error is None else orjson.loads(entry.error),
    }
    if with_values:
        row["branch"] = entry.branch or None
        if entry.value is not None:
            row["value"] = orjson.loads(entry.value)
        if entry.payload is not None:
            row["payload"] = orjson.loads(entry.payload)
    return {key: value for key, value in row.items() if value is not None or key == "value"}


def _start_from(journal: Any) -> TurnStart:
    """Return the turn of an exported run. InvocationError `invalid_payload` for what is none."""
    try:
        namespace = None if journal.get("namespace") == "default" else journal.get("namespace")
        run = Run(
            0, "", str(journal["function_id"]), namespace, None, None, new_trace()["traceparent"], journal["created"]
        )
        entries = [_entry_from(step) for step in journal["steps"]]
        data = orjson.dumps(journal["input"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        text = f"this is no journal: {error!r} is missing or wrong; `iii flow export RUN` writes one"
        raise InvocationError("invalid_payload", text) from None
    return TurnStart(run, data, [recorded_from(entry) for entry in entries], entries, True)


def _entry_from(step: Any) -> Entry:
    state = EntryState[str(step["state"]).upper()]
    entry = Entry(0, step["key"], step.get("branch") or "", step["n"], step["kind"], state, step.get("function_id"))
    entry.source, entry.code, entry.ended = step.get("at"), step.get("code") or "", step.get("ended")
    entry.value = orjson.dumps(step.get("value"))
    entry.error = None if step.get("error") is None else orjson.dumps(step["error"])
    return entry
