"""How runs end: results, errors, cancellation, undoing, and what makes a run go on. SQL inside one transaction."""

from __future__ import annotations

from typing import Any

import orjson

from iii import InvocationError
from stdlib_workers.flow.model import Entry, EntryState, Event, Run, State, Undo
from stdlib_workers.flow.schema import find_entry, find_run, move_run, remove_run, select_entries, select_runs
from stdlib_workers.flow.steps import BATCH, cancel_open, existing
from stdlib_workers.flow.transaction import Transaction, end_entry, error_bytes

# What `cancel` of a run says: who has cancelled it.
CANCEL, TIMEOUT = "cancel", "timeout"


def complete(tx: Transaction, run: Run, result: bytes, leftovers: list[str]) -> None:
    """End a run with its result. Steps that its body has skipped are marked."""
    for key in leftovers:
        entry = find_entry(tx.connection, run.seq, key)
        if entry is not None:
            entry.leftover = 1
            tx.write(run, entry, entry.size)
    cancel_open(tx, run)
    cancel_children(tx, run, "its parent has ended")
    _end(tx, run, Event.RETURNED, State.COMPLETED, result=result)


def fail(tx: Transaction, run: Run, event: Event, error: bytes) -> None:
    """End a run with an error, once its steps are undone; a cancelled run with that of its cancellation."""
    cancel_open(tx, run)
    cancel_children(tx, run, "its parent has ended")
    if run.cancel is not None:
        cancel = orjson.loads(run.cancel)
        error = _cancel_error(run, cancel) if cancel["by"] == CANCEL else _timeout_error(run)
    run.error = error
    if undo_steps(tx, run.seq):
        run.move(event, State.UNDOING)
        run.due = run.deadline = None
        move_run(tx.connection, run)
        tx.changes.undoing.append(run)
    else:
        _end_undone(tx, run, event)


def _end_undone(tx: Transaction, run: Run, event: Event) -> None:
    is_cancelled = run.cancel is not None and orjson.loads(run.cancel)["by"] == CANCEL
    _end(tx, run, event, State.CANCELLED if is_cancelled else State.FAILED, error=run.error)


def _cancel_error(run: Run, cancel: dict[str, Any]) -> bytes:
    reason = cancel.get("reason")
    return error_bytes("run_cancelled", f"the run {run.id} was cancelled{f': {reason}' if reason else ''}")


def _timeout_error(run: Run) -> bytes:
    return error_bytes("flow_timeout", f"the run {run.id} has not ended in the time that its flow has")


def _end(
    tx: Transaction, run: Run, event: Event, state: State, *, result: bytes | None = None, error: bytes | None = None
) -> None:
    run.move(event, state)
    run.result, run.error, run.ended = result, error, tx.now
    run.due = run.deadline = None
    move_run(tx.connection, run)
    tx.changes.ended.append(run)
    tx.announce(tx, run)
    if run.parent is None:
        return
    parent, key = find_run(tx.connection, seq=run.parent), run.parent_key or ""
    entry = find_entry(tx.connection, run.parent, key)
    if parent is None or entry is None or entry.state.is_ended or parent.state >= State.UNDOING:
        return
    size = entry.size
    end_entry(entry, tx.now, value=result, error=error)
    entry.undone = Undo.DUE if entry.undo is not None and error is None else Undo.NONE
    tx.write(parent, entry, size)
    if parent.state is State.PARKED:
        parent.move(Event.WOKEN, State.QUEUED)
        parent.due = None
    parent.deaths = parent.interrupted = 0
    move_run(tx.connection, parent)


def ended_event(run: Run, now: int) -> dict[str, Any]:
    """Return what bindings of `flow:ended` get of a run that has ended, or is blocked."""
    event = {
        "run": run.id,
        "function_id": run.function_id,
        "namespace": run.namespace or "default",
        "state": run.state.name.lower(),
        "at": now,
        "result": orjson.loads(run.result) if run.result is not None and run.state is State.COMPLETED else None,
        "error": None if run.error is None else orjson.loads(run.error),
    }
    return {name: value for name, value in event.items() if value is not None or name == "result"}


# Undoing


def undo_steps(tx: Transaction, seq: int) -> list[Entry]:
    """Return the steps that are to be undone, latest first."""
    return select_entries(tx.connection, f"run = ? AND undone = {int(Undo.DUE)} ORDER BY n DESC", (seq,))


def undone(tx: Transaction, seq: int, key: str, error: bytes | None) -> None:
    """Write that a step is undone, or, with an error, that it cannot be; the last one ends the run."""
    run, entry = find_run(tx.connection, seq=seq), find_entry(tx.connection, seq, key)
    if run is None or entry is None or run.state is not State.UNDOING:
        return
    entry.undone = Undo.DONE if error is None else Undo.FAILED
    tx.write(run, entry, entry.size)
    if error is not None:
        cause = orjson.loads(error)
        text = f"{entry.undo} could not undo the step {key}: {cause.get('message')}; retry goes on there"
        failure = error_bytes("undo_failed", text, step=key, cause=orjson.loads(run.error or b"null"))
        _end(tx, run, Event.UNDONE, State.FAILED, error=failure)
    elif not undo_steps(tx, seq):
        _end_undone(tx, run, Event.UNDONE)


# From outside


def cancel(tx: Transaction, run: Run, by: str, reason: str | None = None, *, force: bool = False) -> None:
    """Cancel a run that has not ended: its steps and children now, then its body has a last turn, unless `force`."""
    is_first = run.cancel is None
    if is_first:
        run.cancel = orjson.dumps({"by": by, "reason": reason, "at": tx.now, "steps": run.steps})
        cancel_open(tx, run)
        cancel_children(tx, run, reason)
    if force:
        fail(tx, run, Event.FORCED, b"null")
    elif is_first:
        run.deadline = tx.now + tx.limits.cleanup_ms
        run.due = None
        run.move(Event.CANCELLED, State.HELD if run.state is State.HELD else State.QUEUED)
        move_run(tx.connection, run)


def cancel_children(tx: Transaction, run: Run, reason: str | None) -> None:
    """Cancel the child runs of a run that have not ended."""
    for child in list(select_runs(tx.connection, "parent = ? AND ended IS NULL", (run.seq,))):
        if child.state < State.UNDOING:
            cancel(tx, child, CANCEL, reason)


def retry(tx: Transaction, run_id: str) -> State:
    """Let a run that has failed, or is blocked, go on. InvocationError `not_retryable`, `run_not_found`."""
    run = existing(tx, run_id)
    if run.state is State.BLOCKED:
        run.error = None
        run.deaths = run.interrupted = 0
        tx.queue(run, Event.RETRIED)
        return run.state
    if run.state is not State.FAILED:
        text = f"the run {run_id} is {run.state.name.lower()}; only a failed or a blocked one can be retried"
        raise InvocationError("not_retryable", text)
    entries = select_entries(tx.connection, "run = ? ORDER BY n", (run.seq,))
    stuck = [entry for entry in entries if entry.undone is Undo.FAILED]
    run.ended = None
    if stuck:
        for entry in stuck:
            entry.undone = Undo.DUE
            tx.write(run, entry, entry.size)
        run.error = orjson.dumps((orjson.loads(run.error or b"{}").get("details") or {}).get("cause"))
        run.move(Event.RETRIED, State.UNDOING)
        move_run(tx.connection, run)
        tx.changes.undoing.append(run)
        return run.state
    if any(entry.undone is Undo.DONE for entry in entries):
        text = f"the run {run_id} has undone its steps; start another one, or fork it before them"
        raise InvocationError("not_retryable", text)
    _reopen(tx, run, entries)
    return run.state


def _reopen(tx: Transaction, run: Run, entries: list[Entry]) -> None:
    """Take the failure out of a journal: the step that has failed the run, or all from the end of its time on."""
    failure = orjson.loads(run.error or b"{}")
    last = run.steps if run.cancel is None else orjson.loads(run.cancel)["steps"]
    gone = [entry for entry in entries if entry.n > last or entry.state is EntryState.CANCELLED]
    gone += [entry for entry in entries if entry not in gone and _is_cause(entry, failure)][-1:]
    for entry in gone:
        tx.connection.execute("DELETE FROM entries WHERE run = ? AND key = ?", (run.seq, entry.key))
        run.size -= entry.size
    run.life += 1
    run.error = run.cancel = run.deadline = None
    run.deaths = run.interrupted = 0
    tx.queue(run, Event.RETRIED)


def _is_cause(entry: Entry, failure: dict[str, Any]) -> bool:
    error = orjson.loads(entry.error) if entry.error else {}
    return entry.state is EntryState.FAILED and all(
        error.get(name) == failure.get(name) for name in ("code", "message")
    )


def forget(tx: Transaction) -> bool:
    """Remove ended runs that have been kept long enough; tell whether there may be more."""
    limits = tx.limits
    rows = tx.connection.execute(
        "SELECT seq FROM runs WHERE ended IS NOT NULL AND ended <= ?1 AND (state = ?2 OR ended <= ?3) LIMIT ?4",
        (tx.now - limits.keep_completed_ms, int(State.COMPLETED), tx.now - limits.keep_failed_ms, BATCH),
    ).fetchall()
    for (seq,) in rows:
        remove_run(tx.connection, seq)
    return len(rows) == BATCH
