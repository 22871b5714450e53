"""The storage thread: group commit, isolation of commands, what a full or failing disk does to whom."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.storage import UNUSABLE, Schema, Store
from stdlib_workers.storage.errors import CORRUPT, FULL
from stdlib_workers.storage.store import MAX_BATCH

SCHEMA = Schema(0x1234, "CREATE TABLE item (name TEXT PRIMARY KEY, body BLOB) STRICT;")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "items.db", SCHEMA)
    yield store
    store.close()


def insert(name: str, body: bytes = b"") -> Any:
    def command(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO item VALUES (?, ?)", (name, body))
        return name

    return command


def names(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM item ORDER BY name")]


def hold(store: Store) -> tuple[threading.Event, Any]:
    """Keep the storage thread inside a commit until the event is set: what follows queues up."""
    go = threading.Event()
    entered = threading.Event()

    def command(_: sqlite3.Connection) -> None:
        entered.set()
        go.wait(10)

    pending = store.run(command)
    entered.wait(10)
    return go, pending


def test_commands_that_wait_share_the_next_commit(store: Store) -> None:
    before = store.commits
    go, held = hold(store)
    waiting = [store.run(insert(f"n{number}")) for number in range(40)]
    go.set()
    held.result(10)
    assert [pending.result(10) for pending in waiting] == [f"n{number}" for number in range(40)]
    assert store.commits - before == 2


def test_a_commit_takes_no_more_than_the_limit(store: Store) -> None:
    before = store.commits
    go, _ = hold(store)
    waiting = [store.run(insert(f"n{number}")) for number in range(MAX_BATCH + 1)]
    go.set()
    waiting[-1].result(10)
    assert store.commits - before == 3


def test_a_lone_command_commits_at_once(store: Store) -> None:
    before = store.commits
    store.run(insert("a")).result(10)
    store.run(insert("b")).result(10)
    assert store.commits - before == 2


def test_a_failing_command_undoes_only_its_own_writes(store: Store) -> None:
    def broken(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO item VALUES ('half', NULL)")
        raise ValueError("no")

    told: list[str] = []
    go, _ = hold(store)
    first, second, third = store.run(insert("a"), then=told.append), store.run(broken), store.run(insert("b"))
    go.set()
    assert (first.result(10), third.result(10)) == ("a", "b")
    with pytest.raises(ValueError, match="no"):
        second.result(10)
    assert store.run(names).result(10) == ["a", "b"]
    assert told == ["a"]


def test_a_command_that_fails_while_reading_does_not_pin_the_log(store: Store) -> None:
    def stumble(connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT name FROM item")
        raise ValueError(next(rows))

    for name in "abc":
        store.run(insert(name)).result(10)
    failed = store.run(stumble)
    with pytest.raises(ValueError, match="a"):
        failed.result(10)
    checkpoint: list[tuple[int, int, int]] = []
    store.run(lambda connection: connection, then=lambda connection: checkpoint.append(truncated(connection))).result(
        10
    )
    assert checkpoint == [(0, 0, 0)]


def truncated(connection: sqlite3.Connection) -> tuple[int, int, int]:
    connection.execute("PRAGMA busy_timeout = 10")
    found: tuple[int, int, int] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return found


def test_then_runs_after_the_commit_in_the_order_of_the_commands(store: Store, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def count_durable(name: str) -> None:
        with sqlite3.connect(tmp_path / "items.db") as other:
            seen.append((name, other.execute("SELECT count(*) FROM item").fetchone()[0]))
        other.close()

    go, _ = hold(store)
    waiting = [store.run(insert(name), then=count_durable) for name in "abc"]
    go.set()
    for pending in waiting:
        pending.result(10)
    assert seen == [("a", 3), ("b", 3), ("c", 3)]


def test_coroutines_of_several_loops_are_answered(store: Store) -> None:
    async def many(prefix: str) -> list[str]:
        return await asyncio.gather(*(one(f"{prefix}{number}") for number in range(20)))

    async def one(name: str) -> str:
        return str(await store.run(insert(name)))

    found: dict[str, list[str]] = {}
    threads = [threading.Thread(target=lambda p=p: found.update({p: asyncio.run(many(p))})) for p in "ab"]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {p: [f"{p}{number}" for number in range(20)] for p in "ab"}


def test_what_is_in_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(None, SCHEMA)
    store.run(insert("a")).result(10)
    assert store.run(names).result(10) == ["a"]
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_acknowledged_is_there_after_reopening(tmp_path: Path) -> None:
    for name in "abc":
        store = Store(tmp_path / "items.db", SCHEMA)
        store.run(insert(name)).result(10)
        store.close()
    store = Store(tmp_path / "items.db", SCHEMA)
    assert store.run(names).result(10) == ["a", "b", "c"]
    store.close()


def test_a_closed_store_answers_that_it_is_closed(store: Store) -> None:
    store.close()
    with pytest.raises(InvocationError) as caught:
        store.run(names).result(10)
    assert (caught.value.code, caught.value.retryable) == (UNUSABLE, True)


def test_q14_a_full_disk_fails_only_the_command_that_does_not_fit(store: Store) -> None:
    store.run(lambda connection: connection.execute("PRAGMA max_page_count = 40").fetchone()).result(10)
    store.run(insert("kept")).result(10)
    go, _ = hold(store)
    small, large, reading = store.run(insert("small")), store.run(insert("large", bytes(400_000))), store.run(names)
    go.set()
    assert small.result(10) == "small"
    with pytest.raises(InvocationError) as caught:
        large.result(10)
    assert caught.value.code == FULL
    assert reading.result(10) == ["kept", "small"]
    assert store.run(insert("later")).result(10) == "later"


class Faulty:
    """A connection whose COMMIT fails as SQLite reports a failed fsync."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.in_transaction = False
        self.total_changes = 0

    def execute(self, sql: str, *_: object) -> None:
        if sql == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self.code
            raise error

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "expected"),
    [(sqlite3.SQLITE_IOERR_FSYNC, UNUSABLE), (sqlite3.SQLITE_IOERR_WRITE, UNUSABLE), (sqlite3.SQLITE_CORRUPT, CORRUPT)],
)
def test_q15_after_a_failed_fsync_nothing_is_acknowledged_any_more(tmp_path: Path, code: int, expected: str) -> None:
    fatal: list[BaseException] = []
    opened = Store(tmp_path / "items.db", SCHEMA, on_fatal=fatal.append)

    def break_disk(_: sqlite3.Connection) -> None:
        opened._commit(Faulty(code), batch)  # type: ignore[arg-type]

    from stdlib_workers.storage.store import _Submission

    batch = [_Submission(lambda _: "never", None), _Submission(lambda _: "neither", None)]
    opened.run(break_disk).result(10)
    for job in batch:
        with pytest.raises(InvocationError) as caught:
            job.pending.result(10)
        assert (caught.value.code, caught.value.retryable) == (expected, False)
    assert len(fatal) == 1
    with pytest.raises(InvocationError):
        opened.run(names).result(10)
    opened.close()


def test_q13_a_lock_from_outside_is_an_error_that_may_be_retried(store: Store, tmp_path: Path) -> None:
    store.run(lambda connection: connection.execute("PRAGMA busy_timeout = 20").fetchone()).result(10)
    outside = sqlite3.connect(tmp_path / "items.db", isolation_level=None)
    outside.execute("BEGIN IMMEDIATE")
    with pytest.raises(InvocationError) as caught:
        store.run(insert("a")).result(10)
    assert (caught.value.code, caught.value.retryable) == (UNUSABLE, True)
    outside.execute("ROLLBACK")
    outside.close()
    assert store.run(insert("a")).result(10) == "a"
