"""The steps of runs and the events sent to them: what each function writes. SQL inside one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from iii import InvocationError
from stdlib_workers.flow.journal import is_within, lineage
from stdlib_workers.flow.model import SLEEP, WAIT, Entry, EntryState, Event, Run, State, Undo
from stdlib_workers.flow.schema import (
    CALLING,
    find_entry,
    find_run,
    first_signal,
    insert_signal,
    move_run,
    select_entries,
    take_signal,
)
from stdlib_workers.flow.transaction import LIMIT, Transaction, end_entry, error_bytes

CANCELLED = "flow_cancelled"
# Rows that one transaction moves: no transaction is long.
BATCH = 256


def record(tx: Transaction, turn: int, entry: Entry, status: bytes | None = None) -> Entry:
    """Write the end, or the begin, of a step that the body makes itself; return it, or the one that has its key.

    InvocationError `flow_fenced`, `flow_limit`.
    """
    run = tx.running(entry.run, turn)
    former = find_entry(tx.connection, entry.run, entry.key)
    if former is not None and former.state.is_ended:
        return former
    _count_progress(run, status)
    if former is None:
        hear_of_cancel(tx, run, entry)
        tx.add(run, entry)
    else:
        entry.n, entry.started, entry.payload = former.n, former.started, former.payload
        entry.undo, entry.undone = former.undo, entry.undone or former.undone
        tx.write(run, entry, former.size)
    move_run(tx.connection, run)
    return entry


def hear_of_cancel(tx: Transaction, run: Run, entry: Entry) -> None:
    """Make the step the one at which the body hears of its cancellation, if it has to.

    Once in each branch: what a branch does after that is its cleanup. The record makes the next turn hear of it at the
    same step.
    """
    if run.cancel is None or has_heard(tx, run.seq, entry.branch):
        return
    entry.state, entry.undone, entry.due, entry.ended = EntryState.CANCELLED, Undo.NONE, None, tx.now


def has_heard(tx: Transaction, run: int, branch: str) -> bool:
    """Tell whether a branch, one above it or one below it has heard of the cancellation."""
    rows = tx.connection.execute("SELECT DISTINCT branch FROM entries WHERE run = ? AND state = 5", (run,))
    above = set(lineage(branch))
    return any(heard in above or is_within(heard, branch) for (heard,) in rows)


def _count_progress(run: Run, status: bytes | None) -> None:
    run.deaths = run.interrupted = 0
    if status is not None:
        run.status = status


def begin(tx: Transaction, turn: int, entry: Entry, status: bytes | None = None) -> Entry:
    """Write that a step is under way, unless it is written already; return what is written.

    One that waits for an event takes the first unread one.
    """
    run = tx.running(entry.run, turn)
    former = find_entry(tx.connection, entry.run, entry.key)
    if former is not None:
        return former
    _count_progress(run, status)
    hear_of_cancel(tx, run, entry)
    if entry.kind == WAIT and not entry.state.is_ended:
        _take_event(tx, entry)
    tx.add(run, entry)
    move_run(tx.connection, run)
    return entry


# Calls


def end_call(tx: Transaction, life: int, entry: Entry, status: bytes | None = None) -> Entry | None:
    """Write the outcome of an attempt, or that another one is due; None if the attempt does not count any more.

    `entry` is the step as it is to be; `entry.attempt` must be the one that is written, if one is.
    """
    run = find_run(tx.connection, seq=entry.run)
    if run is None or run.life != life or run.state >= State.UNDOING:
        return None
    former = find_entry(tx.connection, entry.run, entry.key)
    if former is not None and (former.state.is_ended or former.attempt != entry.attempt):
        return None
    if entry.state.is_ended:
        _count_progress(run, status)
    if former is None:
        tx.add(run, entry)
    else:
        entry.n = former.n
        tx.write(run, entry, former.size)
    move_run(tx.connection, run)
    if entry.state.is_ended and run.state is State.PARKED:
        tx.queue(run, Event.WOKEN)
    return entry


def claim_calls(tx: Transaction, limit: int) -> None:
    """Begin the attempts that are due, oldest first."""
    due = select_entries(
        tx.connection,
        f"state = {int(EntryState.RETRYING)} AND {CALLING} AND due <= ? ORDER BY due LIMIT ?",
        (tx.now, limit),
    )
    for entry in due:
        run = find_run(tx.connection, seq=entry.run)
        if run is None:
            continue
        entry.state, entry.due = EntryState.CALLING, None
        entry.attempt += 1
        tx.write(run, entry, entry.size)
        tx.changes.calls.append((run, entry))


def give_back_calls(tx: Transaction, due: int) -> int:
    """Let the calls that the last process left under way be repeated; returns how many. None of them is spent."""
    left = select_entries(tx.connection, f"state = {int(EntryState.CALLING)} AND {CALLING} LIMIT ?", (BATCH,))
    for entry in left:
        run = find_run(tx.connection, seq=entry.run)
        entry.state, entry.due = EntryState.RETRYING, due
        if run is not None:
            tx.write(run, entry, entry.size)
    return len(left)


# Waiting


def _take_event(tx: Transaction, entry: Entry) -> None:
    events = events_of(entry)
    found = first_signal(tx.connection, entry.run, events)
    if found is not None:
        seq, event, payload = found
        take_signal(tx.connection, seq, entry.key)
        end_entry(entry, tx.now, value=_event_value(events, event, payload))


def _event_value(events: list[str], event: str, payload: bytes | None) -> bytes:
    """What `wait` returns: the payload, with the event's name where there are several to choose from."""
    if len(events) == 1:
        return payload or b"null"
    return b'{"event":%b,"payload":%b}' % (orjson.dumps(event), payload or b"null")


def signal(tx: Transaction, run_id: str, event: str, payload: bytes, id: str | None) -> dict[str, Any]:
    """Keep an event for a run, or give it to the step that waits for it.

    InvocationError `run_not_found`, `run_ended`, `flow_limit`.
    """
    run = existing(tx, run_id)
    connection, seq = tx.connection, run.seq
    if run.state >= State.UNDOING:
        raise InvocationError("run_ended", f"the run {run_id} is {run.state.name.lower()} and takes no more events")
    if id is not None and connection.execute("SELECT 1 FROM signals WHERE run = ? AND id = ?", (seq, id)).fetchone():
        return {"run": run_id, "accepted": False}
    waiting = select_entries(
        connection, f"run = ? AND state = {int(EntryState.OPEN)} AND kind = ? ORDER BY n", (seq, WAIT)
    )
    step = next((entry for entry in waiting if event in events_of(entry)), None)
    if step is None:
        unread = connection.execute("SELECT count(*) FROM signals WHERE run = ? AND taken IS NULL", (seq,)).fetchone()[
            0
        ]
        if unread >= tx.limits.unread_events:
            text = f"{unread} events of the run {run_id} are unread, the limit; let the flow take some first"
            raise InvocationError(LIMIT, text)
        insert_signal(connection, seq, event, payload, id, tx.now)
        return {"run": run_id, "accepted": True}
    take_signal(connection, insert_signal(connection, seq, event, None, id, tx.now), step.key)
    size = step.size
    end_entry(step, tx.now, value=_event_value(events_of(step), event, payload))
    tx.write(run, step, size)
    if run.state is State.PARKED:
        tx.queue(run, Event.WOKEN)
    else:
        move_run(connection, run)
    return {"run": run_id, "accepted": True}


def events_of(entry: Entry) -> list[str]:
    """Return the names of events that a step waits for."""
    names: list[str] = orjson.loads(entry.options or b"{}").get("events", [])
    return names


def end_due(tx: Transaction, run: Run) -> None:
    """End the steps of a run whose time has come."""
    entries = select_entries(
        tx.connection, f"run = ? AND state = {int(EntryState.OPEN)} AND due <= ? ORDER BY n", (run.seq, tx.now)
    )
    for entry in entries:
        size = entry.size
        options = orjson.loads(entry.options or b"{}")
        if entry.kind == SLEEP:
            end_entry(entry, tx.now, value=b"null")
        elif "default" in options:
            end_entry(entry, tx.now, value=orjson.dumps(options["default"]))
        else:
            names = ", ".join(options.get("events", []))
            end_entry(entry, tx.now, error=error_bytes("flow_timeout", f"no event {names} has come in time"))
        tx.write(run, entry, size)


def next_due(tx: Transaction, seq: int) -> int | None:
    """Return when the first waiting step of a run is over, None for never."""
    due: int | None = tx.connection.execute(
        f"SELECT min(due) FROM entries WHERE run = ? AND state = {int(EntryState.OPEN)}", (seq,)
    ).fetchone()[0]
    return due


def cancel_open(tx: Transaction, run: Run) -> None:
    """End the steps of a run that have not ended: the run is cancelled, or has ended without them.

    A call that may have had its effect is undone.
    """
    run.life += 1
    tx.changes.fenced.append(run.seq)
    for entry in select_entries(tx.connection, "run = ? AND state < 3 ORDER BY n", (run.seq,)):
        size = entry.size
        entry.state, entry.due, entry.ended = EntryState.CANCELLED, None, tx.now
        entry.error = error_bytes(CANCELLED, f"the run {run.id} was cancelled")
        if entry.undo is not None:
            entry.undone = Undo.DUE
        tx.write(run, entry, size)


def is_any_ended(tx: Transaction, seq: int, keys: Iterable[str]) -> bool:
    """Tell whether one of these steps has ended."""
    found = (find_entry(tx.connection, seq, key) for key in keys)
    return any(entry is None or entry.state.is_ended for entry in found)


def existing(tx: Transaction, run_id: str) -> Run:
    """Return a run by its id. InvocationError `run_not_found`."""
    run = find_run(tx.connection, id=run_id)
    if run is None:
        text = f"there is no run {run_id!r}; it may be over and forgotten, `iii flow list` shows those there are"
        raise InvocationError("run_not_found", text)
    return run
