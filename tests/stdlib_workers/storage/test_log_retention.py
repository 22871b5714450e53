"""What the journal keeps of logs: bounds of count, bytes and age, and that every gap is told."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdlib_workers.storage import KEY_VALUE_SCHEMA, Bounds, SqliteKeyValue, Store
from stdlib_workers.storage.log_retention import LogRetention

MANY = Bounds("log", 1000, 10**9, 10**9)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def opened(path: Path | None, bounds: Bounds) -> tuple[Store, SqliteKeyValue]:
    store = Store(path, KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    pairs.journal.bound_logs(bounds)
    return store, pairs


def kept(pairs: SqliteKeyValue, topic: str) -> list[bytes]:
    return [entry.body for entry in pairs.journal.read(topic, 0, 10_000).result(10)]


def test_a_topic_keeps_as_many_as_it_may_after_each_commit_and_across_restarts(tmp_path: Path) -> None:
    bounds = MANY._replace(per_topic=3)
    for start in (0, 10):
        store, pairs = opened(tmp_path / "x.db", bounds)
        for number in range(start, start + 10):
            pairs.journal.append([("log a", b"%d" % number), ("log b", b"x"), ("outbox", b"x")]).result(10)
            assert len(kept(pairs, "log a")) <= 3
        store.close()
    store, pairs = opened(tmp_path / "x.db", bounds)
    assert kept(pairs, "log a") == [b"17", b"18", b"19"]
    assert len(kept(pairs, "outbox")) == 20  # nobody but its reader empties it
    store.close()
    store, pairs = opened(tmp_path / "x.db", bounds._replace(per_topic=2))
    assert kept(pairs, "log a") == [b"18", b"19"]
    store.close()


def test_all_topics_together_keep_so_many_bytes_the_newest_ones(tmp_path: Path) -> None:
    bounds = MANY._replace(max_bytes=1000)
    store, pairs = opened(tmp_path / "x.db", bounds)
    for number in range(30):
        pairs.journal.append([(f"log {number}", b"x" * 100), ("outbox", b"y" * 100)]).result(10)
    assert sorted(pairs.journal.topics("log").result(10)) == [f"log {number}" for number in range(20, 30)]
    store.close()
    store, pairs = opened(tmp_path / "x.db", bounds)
    pairs.journal.append([("log new", b"x" * 500)]).result(10)
    assert sorted(pairs.journal.topics("log").result(10)) == [*(f"log {number}" for number in range(25, 30)), "log new"]
    store.close()


def test_what_is_too_old_goes_with_the_next_event() -> None:
    store = Store(None, KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    clock = Clock()
    pairs.journal.retention = LogRetention(MANY._replace(max_age=3600), clock)
    clock.now = 4e9  # far after the entries' own time
    pairs.journal.append([("log a", b"1")]).result(10)
    assert kept(pairs, "log a") == []
    assert pairs.journal.read_whole("log a", 0, 10).result(10) is None
    store.close()


def test_a_longer_history_does_not_turn_an_old_gap_into_a_whole_one(tmp_path: Path) -> None:
    store, pairs = opened(tmp_path / "x.db", MANY._replace(per_topic=3))
    for number in range(10):
        pairs.journal.append([("log a", b"%d" % number)]).result(10)
    store.close()
    store, pairs = opened(tmp_path / "x.db", MANY)
    assert pairs.journal.read_whole("log a", 2, 100).result(10) is None
    entries = pairs.journal.read_whole("log a", 9, 100).result(10)
    assert entries is not None
    assert [entry.body for entry in entries] == [b"9"]
    store.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from("abc"), st.integers(1, 60)),
        st.tuples(st.just("drop"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("restart"), st.just(""), st.integers(1, 4)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS)
def test_what_is_called_whole_is_whole(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, int]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "x.db"
    history, bounds = [], Bounds("log", 3, 150, 10**9)
    store, pairs = opened(path, bounds)
    for kind, name, number in steps:
        if kind == "append":
            topic = f"log {name}"
            entry = pairs.journal.append([(topic, b"x" * number)]).result(10)[0]
            history.append((entry.position, topic))
        elif kind == "drop":
            retention = pairs.journal.retention
            assert retention is not None
            store.run(partial(retention.drop, topic=f"log {name}")).result(10)
        else:
            store.close()
            store, pairs = opened(path, bounds := bounds._replace(per_topic=number))
    for topic in ("log a", "log b", "log c"):
        for position in range(len(history) + 1):
            entries = pairs.journal.read_whole(topic, position, 100).result(10)
            if entries is not None:
                expected = [at for at, of in history if of == topic and at > position]
                assert [entry.position for entry in entries] == expected
    store.close()
