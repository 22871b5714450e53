"""What a storm of calls does to the archive: its file stays small, and the quiet days before it stay there."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from pathlib import Path

from stdlib_workers.observability.config.options import Limits
from stdlib_workers.observability.records.aggregation import Value
from stdlib_workers.observability.records.spans import SECOND
from stdlib_workers.observability.store import history
from stdlib_workers.observability.store.archive import Archive, Batch, used_bytes
from stdlib_workers.observability.store.figures import figure
from stdlib_workers.observability.store.schema import SCHEMA
from stdlib_workers.storage import Schema, Store
from tests.support.observed import NOW, archive, keep, log, span

DAY = 86_400


class Project:
    """Writes traces of two spans to an archive whose clock is its own."""

    def __init__(self, path: Path | None = None) -> None:
        self.now = NOW
        self.path = path
        self.number = 0

    def batch(self, kept: Archive, traces: int, **fields: str) -> None:
        """Record that many traces within one batch."""
        spans = []
        for _ in range(traces):
            self.number += 1
            start = (self.now - NOW) // 1_000_000
            for id, parent in ((1, None), (2, 1)):
                spans.append(span(id, parent, self.number, start=start, **fields))
        keep(kept, *spans)


def stored(kept: Archive) -> Counter[int]:
    """Return how many spans of each trace are stored, by its number."""
    rows = kept.run(lambda connection: connection.execute("SELECT trace FROM spans").fetchall()).result()
    return Counter(int(row[0], 16) for row in rows)


def test_a_storm_neither_grows_the_file_after_two_minutes_nor_forgets_the_quiet_day_before() -> None:
    project = Project()
    sizes = {}
    with archive(limits=Limits(recent_spans=2_000), clock=lambda: project.now) as kept:
        for _ in range(5_000):  # a call every 17 seconds
            project.batch(kept, 1)
            project.now += DAY * SECOND // 5_000
        day = range(1, project.number + 1)
        for second in range(600):
            project.batch(kept, 50, status="error" if second % 10 == 0 else "ok")
            project.now += SECOND
            sizes[second] = kept.run(used_bytes).result()
        left = stored(kept)
        thinned = kept.run(lambda connection: figure(connection, history.SPANS.thinned)).result()
    assert sizes[599] - sizes[120] < 1024 * 1024
    assert all(left[trace] == 2 for trace in day)
    assert all(left[trace] == 2 for trace in range(project.number - 990, project.number + 1))
    assert set(left.values()) == {2}, "a trace was kept in part"
    old = len(left) - len(day) - 1_000
    assert 500 < old < 1_500, f"{old} traces of the storm are in the history"
    assert sum(left.values()) + thinned == 2 * project.number


def test_history_takes_failed_traces_first() -> None:
    project = Project()
    with archive(limits=Limits(recent_spans=100), clock=lambda: project.now) as kept:
        for _ in range(100):
            project.batch(kept, 45)
            project.batch(kept, 5, status="error")
            project.now += SECOND
        query = "SELECT DISTINCT status FROM spans WHERE id BETWEEN 4000 AND 9000"  # what was saved up is used up
        assert kept.run(lambda connection: connection.execute(query).fetchall()).result() == [("error",)]


def test_of_a_flood_of_log_lines_the_newest_stay_and_of_the_older_ones_the_warnings() -> None:
    with archive(limits=Limits(recent_logs=100), clock=lambda: NOW + 500 * SECOND) as kept:
        for second in range(100):
            lines = [log(f"{number}", at=second * 1000, severity_number=9) for number in range(95)]
            warnings = [log("careful", at=second * 1000, severity_number=13) for _ in range(5)]
            keep(kept, logs=[*lines, *warnings])
        ids = kept.run(lambda connection: connection.execute("SELECT id FROM logs").fetchall()).result()
        query = "SELECT DISTINCT body FROM logs WHERE id BETWEEN 4000 AND 9000"  # what was saved up is used up
        assert kept.run(lambda connection: connection.execute(query).fetchall()).result() == [("careful",)]
    assert [row[0] for row in ids[-100:]] == list(range(9_901, 10_001))
    assert len(ids) < 100 + history.STEP + 2 * history.PACE * history.MAX_SAVED // SECOND


def test_one_trace_that_does_not_end_is_no_way_around_the_pace() -> None:
    project = Project()
    with archive(limits=Limits(recent_spans=100), clock=lambda: project.now) as kept:
        for number in range(200):
            keep(kept, *[span(100 * number + one + 2, parent=1, trace=1) for one in range(100)])
            project.now += SECOND
        assert sum(stored(kept).values()) < 5_000


def test_a_restart_gives_history_no_new_allowance(tmp_path: Path) -> None:
    project = Project(tmp_path / "o.db")
    for _ in range(30):
        with archive(project.path, Limits(recent_spans=100), lambda: project.now) as kept:
            project.batch(kept, 400)
            left = sum(stored(kept).values())
    assert left < 100 + 2 * history.PACE * history.MAX_SAVED // SECOND


def test_spans_are_kept_again_when_all_have_gone() -> None:
    project = Project()
    with archive(limits=Limits(recent_spans=100), clock=lambda: project.now) as kept:
        project.batch(kept, 2_000)
        kept.run(lambda connection: connection.execute("DELETE FROM spans")).result()
        project.batch(kept, 100)
        assert sum(stored(kept).values()) == 200


def test_metrics_with_ever_new_names_stay_below_the_bound_of_bytes() -> None:
    limits = Limits(bytes=600_000)
    with archive(limits=limits) as kept:
        for batch in range(60):
            values = [Value(f"{'name' * 50} {batch} {one}", NOW + batch * SECOND, 1.0) for one in range(100)]
            kept.write(Batch(values=values)).result()
        assert kept.run(used_bytes).result() <= limits.bytes


def test_a_lower_bound_of_bytes_is_reached_in_portions(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    with archive(path) as kept:
        for number in range(20):
            keep(kept, *[span(100 * number + one, trace=7, attributes={"a": "x" * 2000}) for one in range(100)])
    with archive(path, Limits(bytes=500_000)) as kept:
        before = sum(stored(kept).values())
        portions = 0
        while kept.sweep(NOW).result():
            portions += 1
            assert portions < 100
        assert kept.run(used_bytes).result() <= 500_000
        assert sum(stored(kept).values()) < before


def test_what_an_older_version_has_kept_stays(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    older = Schema(SCHEMA.application_id, re.sub(r",\s+checksum INTEGER", "", SCHEMA.create), SCHEMA.upgrades[:1])
    store = Store(path, older)
    row = "'parent', 'call', 'shop', 'ok', 1, 2, 0, 1, '[]', NULL"

    def fill(connection: sqlite3.Connection) -> None:
        connection.executemany(
            f"INSERT INTO spans VALUES (NULL, ?, 'span', {row})", [(f"{n:032x}",) for n in range(10_000, 12_000)]
        )

    store.run(fill).result()
    store.close()
    project = Project(path)
    with archive(path, Limits(recent_spans=100), lambda: project.now) as kept:
        for _ in range(10):
            project.batch(kept, 100)
        assert sum(one >= 10_000 for one in stored(kept)) == 2_000
