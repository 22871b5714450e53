"""Flow control in the rows: which jobs may start as far as their keys go. SQL in one transaction.

Jobs with the same keys and priority are a lane: whatever holds one of them up holds up all. Only the first of a lane is
looked at, and the others wait BEHIND it, so a million jobs of a full key are in nobody's way. The first is READY while
its keys have room, LIMITED while they have not, FILLING while its batch is. A READY one is asked again when it is
claimed. Whoever makes room lets in who waits for it: the end of an attempt in its concurrency key, time in its throttle
(`throttles.wake`). How much room there is, is counted from rows.

In a fifo queue each job that heads its group is the first of a lane of its own.
"""

from __future__ import annotations

import sqlite3
import sys
from typing import NamedTuple

from stdlib_workers.queue.limits import JobKeys, after_start, credible_until, free_starts, next_start_ms
from stdlib_workers.queue.model import Queue, State
from stdlib_workers.storage import row_checksum

# Heads that one transaction looks at after a change of the configuration.
REVIEWED = 256
_UNLIMITED = 1 << 30

_ROW = "seq, grp, lane, ckey, tkey, fkey, priority, due, suspect, alone"
_LIMITED = (
    f"SELECT {_ROW} FROM jobs WHERE queue = ? AND {{key}} = ? AND state = 6 AND {{key}} IS NOT NULL "
    "AND state IN ({states}) ORDER BY priority DESC, turn, seq"
)
# The conditions of the indexes, which statements have to repeat.
_INDEXED = {"ckey": "0, 2, 6", "tkey": "0, 6"}
_LIMITED_BY = {key: _LIMITED.format(key=key, states=states) for key, states in _INDEXED.items()}


class Row(NamedTuple):
    """What flow control knows of a job."""

    seq: int
    group: str | None
    lane: str | None
    ckey: str | None
    tkey: str | None
    fkey: str | None
    priority: int
    due: int
    suspect: int
    alone: int

    @property
    def shares_lane(self) -> bool:
        """Whether others may wait behind it. One that is tried alone is nobody's first."""
        return self.lane is not None and self.group is None and not self.suspect and not self.alone


def find(connection: sqlite3.Connection, seq: int) -> Row:
    """Return a job's row."""
    return Row(*connection.execute(f"SELECT {_ROW} FROM jobs WHERE seq = ?", (seq,)).fetchone())


def enter(connection: sqlite3.Connection, queue: Queue, seq: int, now: int) -> None:
    """Give a DELAYED job that may start now, by its time and its group, its place in its lane."""
    row = find(connection, seq)
    if row.shares_lane and (first := _first(connection, queue, row)) is not None:
        _move(connection, seq, State.BEHIND)
        if first[1] == State.FILLING and (_is_old(queue, row, now) or _is_full(connection, queue, row)):
            _admit(connection, queue, find(connection, first[0]), now)
    else:
        _head(connection, queue, row, now)


def _first(connection: sqlite3.Connection, queue: Queue, row: Row) -> tuple[int, int] | None:
    statement = (
        "SELECT seq, state FROM jobs WHERE queue = ? AND lane = ? AND priority = ? AND lane IS NOT NULL "
        "AND grp IS NULL AND state IN (0, 6, 7) AND suspect = 0 AND alone = 0"
    )
    return connection.execute(statement, (queue.id, row.lane, row.priority)).fetchone()  # type: ignore[no-any-return]


def _move(connection: sqlite3.Connection, seq: int, state: State) -> None:
    connection.execute("UPDATE jobs SET state = ? WHERE seq = ?", (state, seq))


def _head(connection: sqlite3.Connection, queue: Queue, row: Row, now: int) -> None:
    """Put a job at the front of its lane, which has nobody there."""
    if row.fkey is not None:
        turn = _turn_of(connection, queue, row) or _next_turn(connection, queue)
        connection.execute("UPDATE jobs SET turn = ? WHERE seq = ?", (turn, row.seq))
    batch = queue.config.batch
    if (
        batch is None
        or row.lane is None
        or not row.shares_lane
        or _is_old(queue, row, now)
        or _is_full(connection, queue, row)
    ):
        _admit(connection, queue, row, now)
    else:
        due = row.due + batch.max_wait_ms
        connection.execute("UPDATE jobs SET state = 7, due = ? WHERE seq = ?", (due, row.seq))


def _is_old(queue: Queue, row: Row, now: int) -> bool:
    """Whether a job that is to be in a batch has waited long enough for others."""
    return queue.config.batch is not None and row.due + queue.config.batch.max_wait_ms <= now


def _is_full(connection: sqlite3.Connection, queue: Queue, row: Row) -> bool:
    """Whether a batch can be made of the first of a lane and those behind it."""
    if queue.config.batch is None:
        return True
    others = queue.config.batch.max_size - 1
    return others == 0 or len(_behind(connection, queue, row, others)) == others


def _behind(connection: sqlite3.Connection, queue: Queue, row: Row, limit: int) -> list[int]:
    statement = (
        "SELECT seq FROM jobs WHERE queue = ? AND lane = ? AND priority = ? AND lane IS NOT NULL AND grp IS NULL "
        "AND state = 3 ORDER BY seq LIMIT ?"
    )
    return [seq for (seq,) in connection.execute(statement, (queue.id, row.lane, row.priority, limit))]


def _turn_of(connection: sqlite3.Connection, queue: Queue, row: Row) -> int | None:
    """Return the turn of a key that another lane of it has already."""
    statement = (
        "SELECT max(turn) FROM jobs WHERE queue = ? AND fkey = ? AND priority = ? AND fkey IS NOT NULL "
        "AND state IN (0, 6, 7)"
    )
    return connection.execute(statement, (queue.id, row.fkey, row.priority)).fetchone()[0]  # type: ignore[no-any-return]


def _next_turn(connection: sqlite3.Connection, queue: Queue) -> int:
    statement = "UPDATE queues SET turn = turn + 1 WHERE id = ? RETURNING turn"
    return connection.execute(statement, (queue.id,)).fetchone()[0]  # type: ignore[no-any-return]


# Room


def _admit(connection: sqlite3.Connection, queue: Queue, row: Row, now: int) -> None:
    """Make the first of a lane READY if its keys have room for one more attempt, and LIMITED if not."""
    has_room = _has_room(connection, queue, row, now)
    _move(connection, row.seq, State.READY if has_room else State.LIMITED)


def _has_room(connection: sqlite3.Connection, queue: Queue, row: Row, now: int) -> bool:
    """Whether an attempt may start now. If only time makes room, the job is looked at again then."""
    if free_slots(connection, queue, row.ckey) <= 0:
        return False
    if _free_starts(connection, queue, row.tkey, now) > 0:
        return True
    _wake(connection, queue, row.tkey, now)
    return False


def free_slots(connection: sqlite3.Connection, queue: Queue, ckey: str | None, *, with_ready: bool = False) -> int:
    """Return how many more jobs of a concurrency key may run, less those that are READY if asked for."""
    limited = queue.config.concurrency_key
    if limited is None or ckey is None:
        return _UNLIMITED
    states = "state IN (0, 2)" if with_ready else "state = 2"
    statement = (
        f"SELECT count(*) FROM jobs WHERE queue = ? AND ckey = ? AND {states} AND batched = 0 "
        "AND ckey IS NOT NULL AND state IN (0, 2, 6)"
    )
    return limited.limit - int(connection.execute(statement, (queue.id, ckey)).fetchone()[0])


def _free_starts(
    connection: sqlite3.Connection, queue: Queue, tkey: str | None, now: int, *, with_ready: bool = False
) -> int:
    throttle = queue.config.throttle
    if throttle is None or tkey is None:
        return _UNLIMITED
    free = free_starts(throttle, _until(connection, queue, tkey, now)[0], now)
    if with_ready and free:
        statement = (
            "SELECT count(*) FROM jobs WHERE queue = ? AND tkey = ? AND state = 0 AND tkey IS NOT NULL "
            "AND state IN (0, 6)"
        )
        free -= int(connection.execute(statement, (queue.id, tkey)).fetchone()[0])
    return free


def _until(connection: sqlite3.Connection, queue: Queue, tkey: str, now: int) -> tuple[int, int | None]:
    """Return up to when the starts of a key are taken, and its `wake`. Of a damaged row: all that can be taken are."""
    row = connection.execute(
        "SELECT until, wake, checksum FROM throttles WHERE queue = ? AND key = ?", (queue.id, tkey)
    ).fetchone()
    if row is None:
        return 0, None
    until, wake, checksum = row
    if row_checksum(queue.id, tkey, until, wake) != checksum:
        sys.stderr.write(f"queue {queue.name}: the throttle of {tkey or 'all jobs'} is damaged on the disk; it waits\n")
        until = 1 << 62
    throttle = queue.config.throttle
    if throttle is not None and credible_until(throttle, until, now) != until:
        until = credible_until(throttle, until, now)
        _write_throttle(connection, queue, tkey, until, wake)
    return until, wake


def _write_throttle(connection: sqlite3.Connection, queue: Queue, tkey: str, until: int, wake: int | None) -> None:
    row = (queue.id, tkey, until, wake)
    connection.execute("INSERT OR REPLACE INTO throttles VALUES (?, ?, ?, ?, ?)", (*row, row_checksum(*row)))


def _wake(connection: sqlite3.Connection, queue: Queue, tkey: str | None, now: int) -> None:
    """Look at the jobs that wait for a start of this key when there is one."""
    throttle = queue.config.throttle
    if throttle is None or tkey is None:
        return
    until, wake = _until(connection, queue, tkey, now)
    at = next_start_ms(throttle, until, now)
    if wake != at:
        _write_throttle(connection, queue, tkey, until, at)


# What happens to the first of a lane


def can_start(connection: sqlite3.Connection, queue: Queue, row: Row, now: int) -> bool:
    """Whether a READY job may be claimed. One that may not is LIMITED from now on."""
    if _has_room(connection, queue, row, now):
        return True
    _move(connection, row.seq, State.LIMITED)
    _let_in(connection, queue, row, now)
    return False


def batch_of(connection: sqlite3.Connection, queue: Queue, row: Row) -> list[int]:
    """Return the jobs that run in one call with the first of a lane."""
    batch = queue.config.batch
    is_lone = batch is None or batch.max_size == 1 or not row.shares_lane
    return [] if batch is None or is_lone else _behind(connection, queue, row, batch.max_size - 1)


def started(connection: sqlite3.Connection, queue: Queue, row: Row, now: int) -> None:
    """Note that a job has been claimed: it has taken a start of its throttle and its key's turn."""
    throttle = queue.config.throttle
    if throttle is not None and row.tkey is not None:
        until, wake = _until(connection, queue, row.tkey, now)
        _write_throttle(connection, queue, row.tkey, after_start(throttle, until, now), wake)
        if _is_waited_for(connection, queue, row.tkey):
            _wake(connection, queue, row.tkey, now)
    if row.fkey is not None and _turn_of(connection, queue, row) is not None:
        connection.execute(
            "UPDATE jobs SET turn = ? WHERE queue = ? AND fkey = ? AND priority = ? AND fkey IS NOT NULL "
            "AND state IN (0, 6, 7)",
            (_next_turn(connection, queue), queue.id, row.fkey, row.priority),
        )
    _promote(connection, queue, row, now)


def _is_waited_for(connection: sqlite3.Connection, queue: Queue, tkey: str) -> bool:
    statement = "SELECT 1 FROM jobs WHERE queue = ? AND tkey = ? AND state = 6 AND tkey IS NOT NULL AND state IN (0, 6)"
    return connection.execute(statement, (queue.id, tkey)).fetchone() is not None


def _promote(connection: sqlite3.Connection, queue: Queue, row: Row, now: int) -> None:
    """Make the oldest job that waits behind the first of a lane, which is gone, the first."""
    if row.shares_lane and _first(connection, queue, row) is None:
        for seq in _behind(connection, queue, row, 1):
            _head(connection, queue, find(connection, seq), now)


def heal(connection: sqlite3.Connection, queue: Queue) -> None:
    """Let the lanes go on whose first job the disk has damaged: what it was the first of may be damaged as well."""
    statement = (
        "UPDATE jobs SET state = 1 WHERE seq IN (SELECT min(seq) FROM jobs AS behind WHERE queue = ? AND state = 3 "
        "AND lane IS NOT NULL AND grp IS NULL AND NOT EXISTS (SELECT 1 FROM jobs WHERE queue = behind.queue "
        "AND lane = behind.lane AND priority = behind.priority AND lane IS NOT NULL AND grp IS NULL "
        "AND state IN (0, 6, 7) AND suspect = 0 AND alone = 0) GROUP BY lane, priority)"
    )
    connection.execute(statement, (queue.id,))


def left(connection: sqlite3.Connection, queue: Queue, row: Row, now: int) -> None:
    """Note that a job has gone that was waiting or running: what it held up goes on."""
    _promote(connection, queue, row, now)
    _let_in(connection, queue, row, now)


def ended(connection: sqlite3.Connection, queue: Queue, keys: JobKeys, now: int) -> None:
    """Note that an attempt has ended: it has left a slot of its concurrency key."""
    if keys.concurrency is not None and queue.config.concurrency_key is not None:
        room = free_slots(connection, queue, keys.concurrency, with_ready=True)
        _let_in_by(connection, queue, "ckey", keys.concurrency, room, now)


def _let_in(connection: sqlite3.Connection, queue: Queue, row: Row, now: int) -> None:
    """Make those jobs READY that wait for a key in which there is room now, the best first."""
    room = free_slots(connection, queue, row.ckey, with_ready=True)
    if row.ckey is not None and queue.config.concurrency_key is not None:
        _let_in_by(connection, queue, "ckey", row.ckey, room, now)
    if row.tkey is not None and queue.config.throttle is not None:
        room = _free_starts(connection, queue, row.tkey, now, with_ready=True)
        _let_in_by(connection, queue, "tkey", row.tkey, room, now)


def _let_in_by(connection: sqlite3.Connection, queue: Queue, column: str, key: str, room: int, now: int) -> None:
    if room <= 0:
        return
    # A job that the other key refuses is passed over: the next may have another one there.
    config = queue.config
    limit = -1 if config.concurrency_key is not None and config.throttle is not None else room
    rows = connection.execute(f"{_LIMITED_BY[column]} LIMIT ?", (queue.id, key, limit)).fetchall()
    for row in map(Row._make, rows):
        if _has_room(connection, queue, row, now):
            _move(connection, row.seq, State.READY)
            room -= 1
        if room == 0:
            return


# Time


def wake(connection: sqlite3.Connection, queue: Queue, now: int, limit: int) -> None:
    """Look at the jobs for which time has made room: in their throttles, and in batches that are old enough."""
    statement = "SELECT key FROM throttles WHERE queue = ? AND wake <= ? ORDER BY wake LIMIT ?"
    for (tkey,) in connection.execute(statement, (queue.id, now, limit)).fetchall():
        until, _ = _until(connection, queue, tkey, now)
        _write_throttle(connection, queue, tkey, until, None)
        room = _free_starts(connection, queue, tkey, now, with_ready=True)
        _let_in_by(connection, queue, "tkey", tkey, room, now)
        is_closed = _free_starts(connection, queue, tkey, now) <= 0
        if is_closed and _is_waited_for(connection, queue, tkey):
            _wake(connection, queue, tkey, now)
    old = (
        f"SELECT {_ROW} FROM jobs WHERE queue = ? AND state = 7 AND due <= ? AND lane IS NOT NULL "
        "AND state IN (6, 7) ORDER BY due LIMIT ?"
    )
    for fields in connection.execute(old, (queue.id, now, limit)).fetchall():
        _admit(connection, queue, Row(*fields), now)


def next_due(connection: sqlite3.Connection, queue: Queue) -> int | None:
    """Return when time makes room for a job that waits, None for never."""
    row = connection.execute(
        "SELECT (SELECT min(wake) FROM throttles WHERE queue = ?1 AND wake IS NOT NULL), "
        "(SELECT min(due) FROM jobs WHERE queue = ?1 AND state = 7 AND lane IS NOT NULL AND state IN (6, 7))",
        (queue.id,),
    ).fetchone()
    return min((due for due in row if due is not None), default=None)


# Where a review begins.
BEGIN = (0, 0, 0)


def review_all(connection: sqlite3.Connection, queue: Queue, now: int) -> None:
    """Look again at all jobs that wait for keys, as after a crash, which has made room in many."""
    last: tuple[int, int, int] | None = BEGIN
    while last is not None:
        last = review(connection, queue, last, now)


def review(
    connection: sqlite3.Connection, queue: Queue, after: tuple[int, int, int], now: int
) -> tuple[int, int, int] | None:
    """Look again at jobs that wait for keys: the configuration may have changed. `after`: the last that was looked at.

    Returns that of this call, None when there are no more.
    """
    statement = (
        f"SELECT {_ROW}, state FROM jobs WHERE queue = ? AND (state, due, seq) > (?, ?, ?) AND lane IS NOT NULL "
        "AND state IN (6, 7) ORDER BY state, due, seq LIMIT ?"
    )
    rows = connection.execute(statement, (queue.id, *after, REVIEWED)).fetchall()
    for *fields, state in rows:
        row = Row(*fields)
        is_open = state == State.LIMITED or _is_full(connection, queue, row)
        if is_open and _has_room(connection, queue, row, now):
            _move(connection, row.seq, State.READY)
        elif is_open and state == State.FILLING:
            _move(connection, row.seq, State.LIMITED)
    if len(rows) < REVIEWED:
        return None
    last = Row(*rows[-1][:-1])
    return rows[-1][-1], last.due, last.seq


def waits_for(connection: sqlite3.Connection, queue: Queue, seq: int, state: State) -> str | None:
    """Return the key of the configuration that holds a job up, `group` for its ordered group, None for nothing."""
    row = find(connection, seq)
    if state is State.BEHIND and row.group is None:
        first = _first(connection, queue, row)
        # Behind one that only waits for its turn there is nothing else to wait for.
        reason = None if first is None else waits_for(connection, queue, first[0], State(first[1]))
        return reason or ("fair_field" if row.fkey is not None else None)
    if state is State.LIMITED:
        return "concurrency_key" if free_slots(connection, queue, row.ckey) <= 0 else "throttle"
    is_debounced = "SELECT 1 FROM jobs WHERE seq = ? AND dkey IS NOT NULL AND attempt = 0"
    if state is State.DELAYED and connection.execute(is_debounced, (seq,)).fetchone():
        return "debounce"
    return {State.BEHIND: "group", State.FILLING: "batch"}.get(state)


def forget(connection: sqlite3.Connection, now: int, limit: int = 500) -> None:
    """Drop the times that limit nothing any more."""
    connection.execute(
        "DELETE FROM throttles WHERE (queue, key) IN "
        "(SELECT queue, key FROM throttles WHERE wake IS NULL AND until <= ? LIMIT ?)",
        (now * 1000, limit),
    )
    connection.execute(
        "DELETE FROM accepted WHERE (queue, key, number) IN "
        "(SELECT queue, key, number FROM accepted WHERE expires <= ? LIMIT ?)",
        (now, limit),
    )
