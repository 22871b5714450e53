"""Ordered groups: one job of a group, its head, may run; the others wait BEHIND it. SQL in one transaction."""

from __future__ import annotations

import sqlite3

from stdlib_workers.queue.model import Queue, State


def entry_state(connection: sqlite3.Connection, queue: Queue, group: str | None, *, due: int, now: int) -> State:
    """Return the state in which a job joins the end of its group, or the queue."""
    if group is not None and (
        has_live_head(connection, queue, group) or (queue.blocks and has_dead_head(connection, queue, group))
    ):
        return State.BEHIND
    return State.DELAYED if due > now else State.READY


def has_live_head(connection: sqlite3.Connection, queue: Queue, group: str) -> bool:
    """Whether the group has a head that runs or will run."""
    live = "SELECT 1 FROM jobs WHERE queue = ? AND grp = ? AND state IN (0, 1, 2, 4) AND grp IS NOT NULL"
    return connection.execute(live, (queue.id, group)).fetchone() is not None


def has_dead_head(connection: sqlite3.Connection, queue: Queue, group: str) -> bool:
    """Whether the group has a dead job: with `on_dead_letter = "block"` no other job passes it."""
    dead = "SELECT 1 FROM jobs WHERE queue = ? AND grp = ? AND state = 5 AND grp IS NOT NULL"
    return connection.execute(dead, (queue.id, group)).fetchone() is not None


def promote_next(connection: sqlite3.Connection, queue: Queue, group: str | None, now: int) -> None:
    """Make the oldest job that waits the head of its group. The group's last head must be gone."""
    if group is None or (queue.blocks and has_dead_head(connection, queue, group)):
        return
    oldest = "SELECT seq, due FROM jobs WHERE queue = ? AND grp = ? AND state = 3 ORDER BY seq LIMIT 1"
    row = connection.execute(oldest, (queue.id, group)).fetchone()
    if row is not None:
        state = State.DELAYED if row[1] > now else State.READY
        connection.execute("UPDATE jobs SET state = ? WHERE seq = ? AND state = 3", (state, row[0]))


def promote_if_headless(connection: sqlite3.Connection, queue: Queue, group: str, now: int) -> None:
    """Make the oldest job that waits the head of its group, unless the group has a live one."""
    if not has_live_head(connection, queue, group):
        promote_next(connection, queue, group, now)
