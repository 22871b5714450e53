"""Ordered groups: one job of a group, its head, may run; the others wait BEHIND it. SQL in one transaction."""

from __future__ import annotations

import sqlite3

from stdlib_workers.queue.model import Queue, State

# Conditions of partial indexes: a head that runs or will run, and a dead one, which no other job of a group passes with
# `on_dead_letter = "block"`.
_LIVE, _DEAD = "state IN (0, 1, 2, 4, 6)", "state = 5"


def entry_state(connection: sqlite3.Connection, queue: Queue, group: str | None, *, due: int, now: int) -> State:
    """Return the state in which a job joins the end of its group, or the queue."""
    if group is not None and (
        _has_head(connection, queue, group, _LIVE) or (queue.blocks and _has_head(connection, queue, group, _DEAD))
    ):
        return State.BEHIND
    return _state_of_head(queue, due, now)


def _state_of_head(queue: Queue, due: int, now: int) -> State:
    """Return the state of a job whose group lets it start. Where jobs have keys, `lanes.enter` makes it READY."""
    return State.DELAYED if due > now or queue.config.has_keys else State.READY


def _has_head(connection: sqlite3.Connection, queue: Queue, group: str, states: str) -> bool:
    statement = f"SELECT 1 FROM jobs WHERE queue = ? AND grp = ? AND {states} AND grp IS NOT NULL"
    return connection.execute(statement, (queue.id, group)).fetchone() is not None


def promote_next(connection: sqlite3.Connection, queue: Queue, group: str | None, now: int) -> None:
    """Make the oldest job that waits the head of its group. The group's last head must be gone."""
    if group is None or (queue.blocks and _has_head(connection, queue, group, _DEAD)):
        return
    oldest = "SELECT seq, due FROM jobs WHERE queue = ? AND grp = ? AND state = 3 ORDER BY seq LIMIT 1"
    row = connection.execute(oldest, (queue.id, group)).fetchone()
    if row is not None:
        state = _state_of_head(queue, row[1], now)
        connection.execute("UPDATE jobs SET state = ? WHERE seq = ? AND state = 3", (state, row[0]))


def promote_if_headless(connection: sqlite3.Connection, queue: Queue, group: str, now: int) -> None:
    """Make the oldest job that waits the head of its group, unless the group has a live one."""
    if not _has_head(connection, queue, group, _LIVE):
        promote_next(connection, queue, group, now)
