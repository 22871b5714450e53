"""`Archive`: what is kept on disk, within its bounds. The one owner of the store.

A batch is written whole, in one commit. Rows over the bound of bytes are forgotten with the same write, rows over the
bounds of count and age at each `sweep`. A full disk loses the batch and stops nothing; the caller counts it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from time import time_ns
from typing import TypeVar

import msgspec

from iii import InvocationError
from stdlib_workers.observability.config.alert_rules import AlertState
from stdlib_workers.observability.config.options import Limits
from stdlib_workers.observability.ingest.batches import Batch
from stdlib_workers.observability.records.metrics import Growth
from stdlib_workers.observability.records.spans import SECOND
from stdlib_workers.observability.store import history, log_table, metric_table, span_table
from stdlib_workers.observability.store.figures import figure, keep_figure
from stdlib_workers.observability.store.sound_rows import read_rows, sound_fields
from stdlib_workers.storage import Pending, Store, row_checksum

T = TypeVar("T")
DROPPED = "dropped"
# Over the bound of bytes, this share of the rows (the oldest) goes at once: not every write has to forget. Small,
# because every page that loses a row is written to the log first.
SHARE_FORGOTTEN = 0.01
# Rows that one command forgets: more would hold up the writes behind it.
MAX_FORGOTTEN = 5_000


class Archive:
    """Spans, logs, metrics, rollups and the alerts' state of one project."""

    def __init__(self, store: Store, limits: Limits, clock: Callable[[], int] = time_ns) -> None:
        self._store = store
        self.limits = limits
        self._clock = clock
        self._growth = Growth(since=clock())  # of the storage thread
        # As they were stored: how many spans were lost since the archive was made, and the alerts' states.
        self.stored_dropped: int = store.run(lambda connection: figure(connection, DROPPED)).result()
        self.stored_alerts: dict[str, AlertState] = store.run(_alert_states).result()

    def run(self, command: Callable[[sqlite3.Connection], T]) -> Pending[T]:
        """Run a command of one of the tables on the storage thread."""
        return self._store.run(command)

    def write(self, batch: Batch, then: Callable[[None], None] | None = None) -> Pending[None]:
        """Keep a batch; `then` runs on the storage thread once it is committed.

        InvocationError `storage_full` or `overloaded` when it could not be kept.
        """

        def command(connection: sqlite3.Connection) -> None:
            try:
                span_table.write(connection, batch.spans)
                log_table.write(connection, batch.logs)
                metric_table.write(connection, batch.metrics, self._growth)
                metric_table.roll_up(connection, batch.values)
            except OverflowError as error:
                # Only counts without sense add up to more than 64 bits.
                raise InvocationError("invalid_payload", f"a number is too large to be kept: {error}") from None
            for rows, recent in ((history.SPANS, self.limits.recent_spans), (history.LOGS, self.limits.recent_logs)):
                history.thin(connection, rows, recent, self._clock())
            _make_room(connection, self.limits.bytes)

        return self._store.run(command, then=then)

    def sweep(self, now: int) -> Pending[bool]:
        """Forget rows that are too old or too many, a bounded number of each; True when there may be more.

        `now` in nanoseconds.
        """
        limits = self.limits

        def command(connection: sqlite3.Connection) -> bool:
            pending = now - limits.pending_seconds * SECOND
            metric_table.forget_older(connection, now - limits.metric_seconds * SECOND, now)
            metric_table.forget_all_but(connection, limits.metrics)
            forgotten = (
                span_table.forget_older(connection, now - limits.span_seconds * SECOND, pending, MAX_FORGOTTEN),
                log_table.forget_older(connection, now - limits.log_seconds * SECOND, MAX_FORGOTTEN),
                span_table.forget_oldest(connection, _excess(span_table.count(connection), limits.spans)),
                log_table.forget_oldest(connection, _excess(log_table.count(connection), limits.logs)),
            )
            has_room = _make_room(connection, limits.bytes)
            return MAX_FORGOTTEN in forgotten or not has_room

        return self._store.run(command)

    def add_dropped(self, count: int) -> Pending[None]:
        """Add to the number of lost spans; it survives a restart."""

        def command(connection: sqlite3.Connection) -> None:
            keep_figure(connection, DROPPED, figure(connection, DROPPED) + count)

        return self._store.run(command)

    def keep_alert_states(self, states: dict[str, AlertState]) -> Pending[None]:
        """Replace the alerts' states: those of rules that are gone are forgotten."""
        fields = [(name, msgspec.json.encode(state._asdict()).decode()) for name, state in states.items()]
        rows = [(*row, row_checksum(*row)) for row in fields]

        def command(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM alerts")
            connection.executemany("INSERT INTO alerts VALUES (?, ?, ?)", rows)

        return self._store.run(command)

    def close(self) -> None:
        """Finish the commands that wait, and close the file."""
        self._store.close()


def _alert_states(connection: sqlite3.Connection) -> dict[str, AlertState]:
    rows = sound_fields("the states of alerts", read_rows(connection, "SELECT name, state, checksum FROM alerts"))
    return {name: AlertState(**msgspec.json.decode(text)) for name, text in rows}


def _excess(count: int, limit: int) -> int:
    return max(0, min(count - limit, MAX_FORGOTTEN))


def _make_room(connection: sqlite3.Connection, max_bytes: int) -> bool:
    """Forget the oldest share of every table that grows, again and again; False when there may be more to forget."""
    left = MAX_FORGOTTEN
    while used_bytes(connection) > max_bytes:
        forgotten = sum(
            table.forget_oldest(connection, min(int(table.count(connection) * SHARE_FORGOTTEN) + 1, MAX_FORGOTTEN))
            for table in (span_table, log_table, metric_table)
        )
        left -= forgotten
        if left <= 0 or not forgotten:
            return not forgotten
    return True


def used_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
