"""How spans and logs become history: the newest are all there, of older ones only some.

A storm of calls would push out the quiet days before it, and fill the disk first. So what leaves the newest rows is
paced, by the times that the rows carry: what came slower than PACE is kept whole, of a storm as much as PACE allows.
A trace is kept or forgotten whole. What of the pace is used up stands in the file: a restart gives nothing away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple

from stdlib_workers.observability.records.spans import SECOND
from stdlib_workers.observability.store import log_table, span_table
from stdlib_workers.observability.store.figures import figure, keep_figure

# Rows a second that history takes, on average: 170,000 a day; as spans, about 120 MB.
PACE = 2
# Nanoseconds of the pace that are saved up while it is quieter, or used up in advance by a long trace.
MAX_SAVED = 600 * SECOND
# Rows that leave the newest at a time: not every write has to look.
STEP = 256


class History(NamedTuple):
    """A table whose rows become history.

    `unit`: what is kept or forgotten together; `wanted`: what is looked for later, and is taken first; `forget` forgets
    the units of these rows, given by their ids, and returns how many rows that were.
    """

    table: str
    unit: str
    wanted: str
    time: str
    forget: Callable[[sqlite3.Connection, Sequence[int]], int]

    @property
    def thinned(self) -> str:
        """The figure that counts the rows which the history did not take."""
        return f"{self.table}_thinned"


SPANS = History("spans", "trace", "status = 'error'", "start", span_table.forget_traces)
LOGS = History("logs", "id", "severity >= 13", "time", log_table.forget)


def thin(connection: sqlite3.Connection, history: History, recent: int, now: int) -> None:
    """Move all but the `recent` newest rows into the history, or forget them; `now` in nanoseconds."""
    table, unit, wanted, time, forget = history
    end_figure, paid_figure = f"{table}_history_end", f"{table}_history_paid"
    last = connection.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0
    end = figure(connection, end_figure, instead=max(0, last - recent))
    if end > last:
        end = 0  # all rows have gone, and ids count from 1 again
    to = last - recent
    if to - end < STEP:
        return
    leaving = f"FROM {table} WHERE id > ? AND id <= ?"
    times = f"SELECT coalesce(min({time}), 0), coalesce(max({time}), 0) {leaving}"
    first, until = connection.execute(times, (end, to)).fetchone()
    until = min(until, now)  # the clocks of other machines may be ahead
    paid = min(max(figure(connection, paid_figure), first - MAX_SAVED), now + MAX_SAVED)
    forgotten = []
    units = f"SELECT min(id), count(*) {leaving} GROUP BY {unit} ORDER BY max({wanted}) DESC, min(id)"
    for id, count in connection.execute(units, (end, to)).fetchall():
        if paid < until:
            paid += count * SECOND // PACE
        else:
            forgotten.append(id)
    thinned = figure(connection, history.thinned) + forget(connection, forgotten)
    for name, value in ((end_figure, to), (paid_figure, paid), (history.thinned, thinned)):
        keep_figure(connection, name, value)
