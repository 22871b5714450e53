"""`SqliteKeyValue`: keys in buckets, order, journal; every backend must pass all of this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from iii import InvocationError
from stdlib_workers.storage import KEY_VALUE_SCHEMA, Change, Entry, Pending, SqliteKeyValue, Store
from tests.support.memory_keyvalue import MemoryKeyValue


def delete(pairs: SqliteKeyValue, bucket: str, key: str) -> Pending[Change]:
    return pairs.update(bucket, key, lambda _: None)


@pytest.fixture(params=["file", "memory", "another"])
def pairs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteKeyValue]:
    if request.param == "another":
        yield MemoryKeyValue()  # type: ignore[misc]
        return
    store = Store(tmp_path / "pairs.db" if request.param == "file" else None, KEY_VALUE_SCHEMA)
    yield SqliteKeyValue(store)
    store.close()


def test_a_change_tells_what_was_and_what_is(pairs: SqliteKeyValue) -> None:
    created = pairs.put("b", "k", b"1").result(10)
    updated = pairs.put("b", "k", b"2").result(10)
    deleted = delete(pairs, "b", "k").result(10)
    assert (created.old, updated.old, deleted.old) == (None, created.new, updated.new)
    assert deleted.new is None
    assert delete(pairs, "b", "k").result(10) == Change("b", "k", None, None)
    assert pairs.get("b", "k").result(10) is None


@pytest.mark.parametrize("key", ["", "a\0b", "\U0001f600", "k" * 4096, "a:b", "'; DROP TABLE entry; --"])
def test_any_string_is_a_key(pairs: SqliteKeyValue, key: str) -> None:
    pairs.put(key, key, b"1").result(10)
    assert [row.key for row in pairs.list(key).result(10)] == [key]
    assert pairs.buckets().result(10) == [key]
    found = pairs.get(key, key).result(10)
    assert found is not None
    assert found.value == b"1"


def test_a_version_never_comes_back_after_a_delete_and_a_restart(tmp_path: Path) -> None:
    versions = []
    for _ in range(3):
        store = Store(tmp_path / "pairs.db", KEY_VALUE_SCHEMA)
        pairs = SqliteKeyValue(store)
        new = pairs.put("b", "k", b"1").result(10).new
        assert new is not None
        versions.append(new.version)
        delete(pairs, "b", "k").result(10)
        store.close()
    assert len(set(versions)) == 3
    assert versions == sorted(versions)


def test_a_listing_keeps_the_order_of_first_writes_and_pages(pairs: SqliteKeyValue) -> None:
    for key in ("z", "a", "m", "a"):
        pairs.put("b", key, b"0").result(10)
    first = pairs.list("b", limit=2).result(10)
    rest = pairs.list("b", after=first[-1].position).result(10)
    assert [row.key for row in [*first, *rest]] == ["z", "a", "m"]
    assert pairs.count("b").result(10) == 3
    assert pairs.list("unknown").result(10) == []


def test_a_bucket_without_keys_is_gone(pairs: SqliteKeyValue) -> None:
    for bucket in ("y", "x"):
        pairs.put(bucket, "k", b"0").result(10)
    assert pairs.buckets().result(10) == ["x", "y"]
    delete(pairs, "x", "k").result(10)
    assert pairs.buckets().result(10) == ["y"]


def test_watchers_see_every_change_in_order_with_its_journal(pairs: SqliteKeyValue) -> None:
    seen: list[Change] = []
    pairs.watch(seen.append)
    done = [pairs.update("b", "k", lambda _, n=n: b"%d" % n, lambda change: [("log", b"x")]) for n in range(5)]  # type: ignore[misc]
    changes = [pending.result(10) for pending in done]
    assert seen == changes
    positions = [change.journal[0].position for change in changes]
    assert positions == sorted(set(positions))


def test_a_refused_write_leaves_no_journal_entry_and_tells_nobody(pairs: SqliteKeyValue) -> None:
    seen: list[Change] = []
    pairs.watch(seen.append)

    def refuse(_: Entry | None) -> bytes:
        raise InvocationError("NO", "not today")

    with pytest.raises(InvocationError, match="not today"):
        pairs.update("b", "k", refuse, lambda _: [("log", b"x")]).result(10)
    assert seen == []
    assert pairs.journal.read("log", 0, 10).result(10) == []


def test_writes_in_one_step_build_on_each_other_and_are_all_or_none(pairs: SqliteKeyValue) -> None:
    def more(entry: Entry | None) -> bytes:
        return (entry.value if entry else b"") + b"1"

    def refuse(_: Entry | None) -> bytes:
        raise InvocationError("NO", "not today")

    pairs.update_all([("b", "k", more), ("b", "k", more), ("c", "k", more)]).result(10)
    for writes in ([("b", "k", more), ("n", "k", refuse)], [("c", "k", lambda _: None), ("n", "k", refuse)]):
        with pytest.raises(InvocationError, match="not today"):
            pairs.update_all(writes).result(10)
    found = [pairs.get(bucket, "k").result(10) for bucket in "bcn"]
    assert [entry and entry.value for entry in found] == [b"11", b"1", None]
    assert (pairs.buckets().result(10), pairs.count("b").result(10)) == (["b", "c"], 1)


def test_a_key_that_is_written_again_after_its_deletion_comes_last(pairs: SqliteKeyValue) -> None:
    for key in "ab":
        pairs.put("b", key, b"1")
    delete(pairs, "b", "a")
    pairs.put("b", "a", b"2")
    assert [row.key for row in pairs.list("b").result(10)] == ["b", "a"]
    assert pairs.count("b").result(10) == 2


def test_what_is_at_hand_is_what_was_written_last(pairs: SqliteKeyValue) -> None:
    for value in (b"1", b"2"):
        pairs.put("b", "k", value).result(10)
    found = pairs.recent("b", "k")
    assert found is not None
    assert found.value == b"2"
    delete(pairs, "b", "k").result(10)
    assert pairs.recent("b", "k") is None


def test_the_journal_is_read_by_topic_and_trimmed_from_its_start(pairs: SqliteKeyValue) -> None:
    lines = pairs.journal.append([(topic, b"x") for topic in ("a", "b", "a", "a")]).result(10)
    assert pairs.journal.last().result(10) == lines[-1].position
    ours = [line.position for line in lines if line.topic == "a"]
    assert [line.position for line in pairs.journal.read("a", 0, 2).result(10)] == ours[:2]
    assert [line.position for line in pairs.journal.read("a", ours[1], 9).result(10)] == ours[2:]
    pairs.journal.drop_first("a", 1).result(10)
    assert [line.position for line in pairs.journal.read("a", 0, 9).result(10)] == ours[1:]
    pairs.journal.remove(ours).result(10)
    assert pairs.journal.read("a", 0, 9).result(10) == []
    assert pairs.journal.append([("a", b"x")]).result(10)[0].position > lines[-1].position


def test_a_transaction_reads_its_own_writes_before_they_are_on_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "pairs.db", KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    gate = Event()
    store.run(lambda _: gate.wait(10))
    # All of these wait for the gate: they share its transaction or the next one.
    changes = [pairs.update("b", f"k{n % 100}", lambda entry: b"2" if entry else b"1") for n in range(150)]
    listed, counted, found = pairs.list("b"), pairs.count("b"), pairs.get("b", "k0")
    at_hand = pairs.recent("b", "k0")
    before = store.commits
    gate.set()
    assert [row.entry.value for row in listed.result(10)] == [b"2"] * 50 + [b"1"] * 50
    assert (counted.result(10), found.result(10), at_hand) == (100, changes[100].result(10).new, None)
    store.close()
    assert store.commits - before <= 2
    reopened = Store(tmp_path / "pairs.db", KEY_VALUE_SCHEMA)
    assert [row.entry.value for row in SqliteKeyValue(reopened).list("b").result(10)] == [b"2"] * 50 + [b"1"] * 50
    reopened.close()
