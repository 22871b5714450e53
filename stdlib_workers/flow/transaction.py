"""One transaction of the flow worker, and what it has changed for those who wait in memory.

`Changes` is filled on the storage thread while commands run, and handed over after the commit; a transaction that runs
again begins with an empty one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from iii import InvocationError
from stdlib_workers.flow.model import Entry, EntryState, Event, Recorded, Run, State
from stdlib_workers.flow.schema import find_run, move_run, write_entry
from stdlib_workers.storage import JournalEntry

LIMIT = "flow_limit"
FENCED = "flow_fenced"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may hold, in bytes and numbers, and how long ended runs are kept, in milliseconds."""

    value_bytes: int = 1024 * 1024
    steps: int = 10_000
    run_bytes: int = 64 * 1024 * 1024
    unread_events: int = 1_000
    cleanup_ms: int = 60_000
    keep_completed_ms: int = 7 * 86_400_000
    keep_failed_ms: int = 30 * 86_400_000


@dataclass(slots=True)
class TurnStart:
    """A turn that has been written down and must now be made. `journal` holds the first ended steps of the run.

    `is_whole`: all of them.
    """

    run: Run
    data: bytes
    recorded: list[Recorded]
    journal: list[Entry]
    is_whole: bool


@dataclass(slots=True)
class Changes:
    """What a transaction has done. `fenced` are runs whose turn and calls must end now, whoever they were made by."""

    turns: list[TurnStart] = field(default_factory=list)
    calls: list[tuple[Run, Entry]] = field(default_factory=list)  # attempts to make
    steps: list[Entry] = field(default_factory=list)  # that have ended
    ended: list[Run] = field(default_factory=list)
    undoing: list[Run] = field(default_factory=list)
    fenced: list[int] = field(default_factory=list)
    events: list[JournalEntry] = field(default_factory=list)  # for bindings of `flow:ended`
    due: int | None = None


@dataclass(slots=True)
class Transaction:
    """What every command gets."""

    connection: sqlite3.Connection
    now: int
    changes: Changes
    limits: Limits
    announce: Callable[[Transaction, Run], None]

    def running(self, seq: int, turn: int) -> Run:
        """Return a run whose current turn this is. InvocationError `flow_fenced` for any other."""
        run = find_run(self.connection, seq=seq)
        if run is None or run.state is not State.RUNNING or run.turn != turn:
            raise fenced(seq, turn)
        return run

    def queue(self, run: Run, event: Event) -> None:
        """Let a run have its next turn."""
        run.move(event, State.QUEUED)
        run.due = None
        move_run(self.connection, run)

    def add(self, run: Run, entry: Entry) -> None:
        """Write a new step and count it; the run's row is the caller's to write. InvocationError `flow_limit`."""
        if run.steps >= self.limits.steps:
            text = f"the run {run.id} has {run.steps} steps, the limit; flow.again(input) begins an empty journal"
            raise InvocationError(LIMIT, text)
        run.steps += 1
        entry.n = run.steps
        self.write(run, entry, 0)

    def write(self, run: Run, entry: Entry, former_size: int) -> None:
        """Write a step and count its bytes; the run's row is the caller's to write. InvocationError `flow_limit`."""
        run.size += entry.size - former_size
        if run.size > self.limits.run_bytes:
            text = f"the journal of the run {run.id} is over {self.limits.run_bytes} bytes; keep large values elsewhere"
            raise InvocationError(LIMIT, text)
        write_entry(self.connection, entry)
        if entry.state.is_ended:
            self.changes.steps.append(entry)


def fenced(run: object, turn: int) -> InvocationError:
    """Return the error of a turn that is not the run's current one."""
    return InvocationError(FENCED, f"turn {turn} of the run {run} is over; another one has taken its place")


def end_entry(entry: Entry, now: int, *, value: bytes | None = None, error: bytes | None = None) -> None:
    """Give a step its outcome."""
    entry.state = EntryState.DONE if error is None else EntryState.FAILED
    entry.value, entry.error, entry.due, entry.ended = value, error, None, now


def encode(value: Any, what: str, limit: int) -> bytes:
    """Return a value as JSON. InvocationError `flow_limit` for one that is too large."""
    data = orjson.dumps(value)
    if len(data) > limit:
        text = f"{what} has {len(data)} bytes, over the limit of {limit}; keep it in state or a file, and pass its key"
        raise InvocationError(LIMIT, text)
    return data


def error_bytes(code: str, message: str, **details: Any) -> bytes:
    """Return an error body as it is stored."""
    body: dict[str, Any] = {"code": code, "message": message}
    return orjson.dumps({**body, "details": details} if details else body)
