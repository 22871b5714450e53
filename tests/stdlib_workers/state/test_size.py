"""A million keys: none is lost, what is asked costs what it does among few, and a start reads none. Slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store

KEYS, BATCH = 1_000_000, 10_000


class Statements:
    """Counts the steps of SQLite's machine that a command takes: work, whatever else the machine does."""

    def __init__(self, store: Store) -> None:
        self.steps = 0
        store.run(lambda connection: connection.set_progress_handler(self._count, 10)).result(30)

    def _count(self) -> int:
        self.steps += 1
        return 0


def work_of(pairs: SqliteKeyValue, counted: Statements, key: str) -> int:
    """Return what a read that is not at hand, a write, a page, a count and a list of buckets cost."""
    begin = counted.steps
    pairs.get("b", key).result(30)
    pairs.put("b", key, b"2").result(30)
    assert len(pairs.list("b", after=10, limit=100).result(30)) == 100
    pairs.count("b").result(30)
    assert pairs.buckets().result(30) == ["b"]
    return counted.steps - begin


def fill(pairs: SqliteKeyValue, start: int, end: int) -> None:
    """Write keys, thousands at a time."""
    for first in range(start, end, BATCH):
        waiting = [pairs.put("b", f"k{n}", b"1") for n in range(first, min(end, first + BATCH))]
        waiting[-1].result(60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_keys_cost_what_a_thousand_cost(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    fill(pairs, 0, 1000)
    few = work_of(pairs, Statements(store), "k7")
    fill(pairs, 1000, KEYS)
    store.close()
    store = Store(tmp_path / "state.db", KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    assert pairs.count("b").result(30) == KEYS
    assert pairs.recent("b", "k7") is None
    many = work_of(pairs, Statements(store), "k7")
    assert pairs.get("b", f"k{KEYS - 1}").result(30) is not None
    store.close()
    # Twice as deep a tree at most.
    assert many <= 2 * few, (few, many)
