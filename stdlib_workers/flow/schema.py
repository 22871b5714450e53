"""The tables of the flow worker's database, and rows to objects and back. SQL inside one transaction.

Partial indexes keep each query as small as its answer: a million parked runs do not slow down a claim. AUTOINCREMENT: a
sequence number is never used twice. Every row has the checksum of its columns; a run has two, because a turn must not
read and write an input of a megabyte: one of what never changes, and one of where the run stands.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import fields
from typing import Any

from stdlib_workers.flow.model import Entry, EntryState, Run, State, Undo
from stdlib_workers.storage import Schema, check_row, row_checksum
from stdlib_workers.storage.sqlite_journal import JOURNAL_TABLES
from stdlib_workers.storage.sqlite_records import RECORD_TABLE

# SQLite uses a partial index for a statement that repeats the index's condition, and for no other.
ACTIVE, WAITING, CALLING = "state IN (1, 5)", "state IN (3, 4)", "state IN (1, 2)"
# "iiiF": tells this file from any other SQLite file.
SCHEMA = Schema(
    0x69696946,
    f"""
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, function_id TEXT NOT NULL, namespace TEXT,
    parent INTEGER, parent_key TEXT, traceparent TEXT NOT NULL, created INTEGER NOT NULL,
    state INTEGER NOT NULL, turn INTEGER NOT NULL, life INTEGER NOT NULL, due INTEGER, deadline INTEGER,
    cancel BLOB, deaths INTEGER NOT NULL,
    interrupted INTEGER NOT NULL, code TEXT NOT NULL, steps INTEGER NOT NULL, size INTEGER NOT NULL, status BLOB,
    result BLOB, error BLOB, ended INTEGER, mark INTEGER NOT NULL, input BLOB NOT NULL, checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE entries (
    run INTEGER NOT NULL, key TEXT NOT NULL, branch TEXT NOT NULL, n INTEGER NOT NULL, kind TEXT NOT NULL,
    state INTEGER NOT NULL, function_id TEXT, payload BLOB, options BLOB, attempt INTEGER NOT NULL,
    spent INTEGER NOT NULL, due INTEGER, undo TEXT, undone INTEGER NOT NULL, value BLOB, error BLOB, source TEXT,
    code TEXT NOT NULL, leftover INTEGER NOT NULL, started INTEGER NOT NULL, ended INTEGER, checksum INTEGER NOT NULL,
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE signals (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL, event TEXT NOT NULL, payload BLOB, id TEXT, taken TEXT,
    created INTEGER NOT NULL, checksum INTEGER NOT NULL, UNIQUE (run, id)
) STRICT;
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX queued ON runs (seq) WHERE state = 0;
CREATE INDEX active ON runs (state) WHERE {ACTIVE};
CREATE INDEX parked ON runs (due) WHERE state = 2 AND due IS NOT NULL;
CREATE INDEX waiting ON runs (function_id, state) WHERE {WAITING};
CREATE INDEX deadlines ON runs (deadline) WHERE deadline IS NOT NULL AND ended IS NULL;
CREATE INDEX children ON runs (parent) WHERE parent IS NOT NULL AND ended IS NULL;
CREATE INDEX over ON runs (ended) WHERE ended IS NOT NULL;
CREATE INDEX calling ON entries (state, due) WHERE {CALLING};
CREATE INDEX unread ON signals (run, seq) WHERE taken IS NULL;
INSERT INTO secrets VALUES ('tokens', randomblob(32));
{JOURNAL_TABLES}
{RECORD_TABLE}
""",
)

_RUN = tuple(field.name for field in fields(Run))
# What never changes of a run, and what does.
_CONTENT = ("id", "function_id", "namespace", "parent", "parent_key", "traceparent", "created", "input")
_PLACE = _RUN[_RUN.index("state") :]
_ENTRY = tuple(field.name for field in fields(Entry))
_SELECT_RUN = f"SELECT {', '.join(_RUN)}, mark FROM runs"
_SELECT_ENTRY = f"SELECT {', '.join(_ENTRY)}, checksum FROM entries"
_MARKS = ", ".join("?" * (len(_ENTRY) + 1))
_WRITE_ENTRY = f"INSERT OR REPLACE INTO entries ({', '.join(_ENTRY)}, checksum) VALUES ({_MARKS})"
_MOVE_RUN = f"UPDATE runs SET {', '.join(f'{name} = ?' for name in _PLACE)}, mark = ? WHERE seq = ?"
_INSERT_RUN = (
    f"INSERT INTO runs ({', '.join((*_CONTENT, *_PLACE))}, mark, checksum) "
    f"VALUES ({', '.join('?' * (len(_CONTENT) + len(_PLACE) + 2))})"
)


def find_run(connection: sqlite3.Connection, *, seq: int | None = None, id: str | None = None) -> Run | None:
    """Return a run by its sequence number or its id. InvocationError `storage_corrupt` for a damaged one."""
    where, value = ("id = ?", id) if seq is None else ("seq = ?", seq)
    return next(select_runs(connection, where, (value,)), None)


def select_runs(connection: sqlite3.Connection, where: str, values: Iterable[Any] = ()) -> Iterator[Run]:
    """Yield the runs of a condition (with what follows it). InvocationError `storage_corrupt` for a damaged one."""
    for *columns, mark in connection.execute(f"{_SELECT_RUN} WHERE {where}", tuple(values)).fetchall():
        run = Run(*columns)
        check_row(f"the run {run.id}", mark, run.seq, *_place(run))
        run.state = State(run.state)
        yield run


def read_input(connection: sqlite3.Connection, run: Run) -> bytes:
    """Return the input of a run, JSON. InvocationError `storage_corrupt` for a damaged one."""
    row = connection.execute(f"SELECT {', '.join(_CONTENT)}, checksum FROM runs WHERE seq = ?", (run.seq,)).fetchone()
    *content, checksum = row
    check_row(f"the input of the run {run.id}", checksum, *content)
    return bytes(content[-1])


def insert_run(connection: sqlite3.Connection, run: Run, data: bytes) -> None:
    """Write a new run with its input, and give it its sequence number."""
    content = (*(getattr(run, name) for name in _CONTENT[:-1]), data)
    cursor = connection.execute(_INSERT_RUN, (*content, *_place(run), 0, row_checksum(*content)))
    run.seq = int(cursor.lastrowid or 0)
    connection.execute("UPDATE runs SET mark = ? WHERE seq = ?", (row_checksum(run.seq, *_place(run)), run.seq))


def replace_input(connection: sqlite3.Connection, run: Run, data: bytes) -> None:
    """Give a run another input."""
    content = (*(getattr(run, name) for name in _CONTENT[:-1]), data)
    connection.execute("UPDATE runs SET input = ?, checksum = ? WHERE seq = ?", (data, row_checksum(*content), run.seq))


def move_run(connection: sqlite3.Connection, run: Run) -> None:
    """Write where a run stands."""
    place = _place(run)
    connection.execute(_MOVE_RUN, (*place, row_checksum(run.seq, *place), run.seq))


def _place(run: Run) -> tuple[Any, ...]:
    return tuple(getattr(run, name) for name in _PLACE)


def find_entry(connection: sqlite3.Connection, run: int, key: str) -> Entry | None:
    """Return a step of a run. InvocationError `storage_corrupt` for a damaged one."""
    return next(iter(select_entries(connection, "run = ? AND key = ?", (run, key))), None)


def select_entries(connection: sqlite3.Connection, where: str, values: Iterable[Any] = ()) -> list[Entry]:
    """Return the steps of a condition (with what follows it). InvocationError `storage_corrupt` for a damaged one."""
    return list(iterate_entries(connection, where, values))


def iterate_entries(connection: sqlite3.Connection, where: str, values: Iterable[Any] = ()) -> Iterator[Entry]:
    """As `select_entries`, one after the other: nothing may be written meanwhile."""
    with closing(connection.execute(f"{_SELECT_ENTRY} WHERE {where}", tuple(values))) as cursor:
        for *columns, checksum in cursor:
            entry = Entry(*columns)
            check_row(f"the step {entry.key}", checksum, *columns)
            entry.state, entry.undone = EntryState(entry.state), Undo(entry.undone)
            yield entry


def write_entry(connection: sqlite3.Connection, entry: Entry) -> None:
    """Write a step, in place of what it was."""
    columns = tuple(getattr(entry, name) for name in _ENTRY)
    connection.execute(_WRITE_ENTRY, (*columns, row_checksum(*columns)))


def insert_signal(
    connection: sqlite3.Connection, run: int, event: str, payload: bytes | None, id: str | None, now: int
) -> int:
    """Write an event and return its sequence number."""
    columns = (run, event, payload, id, None, now)
    statement = "INSERT INTO signals (run, event, payload, id, taken, created, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)"
    return int(connection.execute(statement, (*columns, row_checksum(*columns))).lastrowid or 0)


def first_signal(connection: sqlite3.Connection, run: int, events: list[str]) -> tuple[int, str, bytes | None] | None:
    """Return number, event and payload of the first unread event of these names, None without one."""
    marks = ", ".join("?" * len(events))
    row = connection.execute(
        f"SELECT seq, event, payload, id, created, checksum FROM signals "
        f"WHERE run = ? AND taken IS NULL AND event IN ({marks}) ORDER BY seq LIMIT 1",
        (run, *events),
    ).fetchone()
    if row is None:
        return None
    seq, event, payload, id, created, checksum = row
    check_row(f"the event {event}", checksum, run, event, payload, id, None, created)
    return seq, event, payload


def take_signal(connection: sqlite3.Connection, seq: int, key: str) -> None:
    """Mark an event as read by the step `key`; its id still drops repeats."""
    statement = (
        "UPDATE signals SET taken = ?1, payload = NULL, "
        "checksum = row_checksum(run, event, NULL, id, ?1, created) WHERE seq = ?2"
    )
    connection.execute(statement, (key, seq))


def remove_run(connection: sqlite3.Connection, seq: int) -> None:
    """Remove a run with all that belongs to it."""
    for statement in ("entries WHERE run = ?", "signals WHERE run = ?", "runs WHERE seq = ?"):
        connection.execute(f"DELETE FROM {statement}", (seq,))
