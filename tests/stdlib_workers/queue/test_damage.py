"""Rows that the disk has changed: named, never run, never served; and files from before rows had checksums."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.attempts import Outcome, Verdict
from stdlib_workers.queue import admin, catalog
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.delivery import advance, recover, settle
from stdlib_workers.queue.limits import ConcurrencyKey
from stdlib_workers.queue.model import NewJob, Queue, QueueConfig, State
from stdlib_workers.queue.new_jobs import content_checksum, enqueue, insert, plain_row
from stdlib_workers.queue.schema import CHECKSUM, CONTENT, FIRST_TABLES, SCHEMA, TABLES, TRIGGERS
from stdlib_workers.storage import Refusal, Schema, Store, row_checksum

JOB = NewJob("job-1", "bank::pay", b'{"to":"ada"}', "n", b'{"m":1}', "00-a-b-01", "k=v", group="g", key="once")


MOVED = TRIGGERS.partition("CREATE TRIGGER added")[0]


@contextmanager
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    yield connection
    connection.close()


def fifo(connection: sqlite3.Connection) -> Queue:
    config = QueueConfig(type="fifo", message_group_field="g", max_retries=2)
    return catalog.define(connection, "jobs", config)[0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("data", b'{"to":"eda"}'),
        ("data", b"no json"),
        ("function_id", "bank::pby"),
        ("namespace", None),
        ("metadata", b'{"m":3}'),
        ("traceparent", "00-a-c-01"),
        ("baggage", "k=w"),
        ("priority", 1),
        ("checksum", 1),
        ("attempt", 1),
        ("spent", 1),
        ("interrupted", 1),
        ("suspect", 1),
        ("due", 1 << 40),
        ("mark", 1),
    ],
)
def test_a_damaged_job_is_a_dead_letter_and_the_next_of_its_group_runs(
    column: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with database() as connection:
        queue = fifo(connection)
        enqueue(connection, queue, JOB, 0)
        enqueue(connection, queue, NewJob("job-2", "bank::pay", b"2", group="g"), 0)
        connection.execute("DROP TRIGGER moved")
        connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = 'job-1'", (value,))
        connection.executescript(MOVED)
        [peeked, _] = admin.peek(connection, queue, 0, 10)
        assert (peeked["payload"], peeked["damaged"]) == (None, True)
        started = advance(connection, queue, "run", 5)
        assert (started.deliveries, started.due) == ([], 5)  # come again at once: there is more to start
        assert "job job-1 of bank::p" in capsys.readouterr().err
        assert [delivery.id for delivery in advance(connection, queue, "run", 5).deliveries] == ["job-2"]
        [letter] = admin.letters(connection, [queue], 0, 10)
        assert (letter["id"], letter["payload"]) == ("job-1", None)
        assert letter["error"].startswith("storage_corrupt: job job-1 of bank::p")
        with pytest.raises(InvocationError, match="job job-1 is damaged on the disk; it can only be discarded"):
            admin.redrive(connection, queue, "job-1", 5, b"1")
        assert admin.redrive_all(connection, queue, 5) == 0
        assert admin.discard(connection, queue, "job-1", 5)


def test_a_job_whose_text_is_none_any_more_is_a_dead_letter_too(capsys: pytest.CaptureFixture[str]) -> None:
    with database() as connection:
        queue = fifo(connection)
        enqueue(connection, queue, JOB, 0)
        connection.execute("UPDATE jobs SET function_id = CAST(x'62ff' AS TEXT)")
        assert advance(connection, queue, "run", 0, frozenset({(None, "missing::one")})).deliveries == []
        assert connection.execute("SELECT state FROM jobs").fetchone() == (State.DEAD,)
        assert "job job-1 is damaged" in capsys.readouterr().err
        [letter] = admin.letters(connection, [queue], 0, 10)
        assert (letter["function_id"], letter["payload"]) == ("?", None)


def test_a_damaged_key_takes_no_job_in_and_a_damaged_error_is_said_to_be_lost() -> None:
    with database() as connection:
        queue = fifo(connection)
        enqueue(connection, queue, JOB, 0)
        connection.execute("UPDATE keys SET job = 'job-9'")
        with pytest.raises(InvocationError, match="the key 'once' of queue jobs is damaged"):
            enqueue(connection, queue, JOB, 0)
        connection.execute("UPDATE jobs SET state = 5, ended = 0")
        fields = ("job-1", 1, 0, 0, '{"code":"a"}')
        connection.execute("INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?)", (*fields, row_checksum(*fields) + 1))
        [letter] = admin.letters(connection, [queue], 0, 10)
        assert letter["attempts"][0]["error"]["code"] == "storage_corrupt"
        assert letter["payload"] == {"to": "ada"}


def test_what_moves_or_changes_a_job_leaves_it_sound() -> None:
    with database() as connection:
        queue = fifo(connection)
        enqueue(connection, queue, JOB, 0)
        connection.execute("UPDATE jobs SET state = 5, ended = 0")
        assert admin.redrive(connection, queue, "job-1", 0, b'"new"')
        early = catalog.queue_without_subscribers(connection, "orders")
        for name in ("sound", "damaged"):
            enqueue(connection, early, NewJob(name, "", b"1"), 0)
        connection.execute("UPDATE jobs SET data = x'32' WHERE id = 'damaged'")
        topic = Queue(0, catalog.topic_name("orders", None, "a::on"), QueueConfig(), "orders", None, "a::on", b"1")
        subscribed = catalog.subscribe(connection, topic)
        rows = connection.execute(f"SELECT {CONTENT['jobs']}, checksum FROM jobs").fetchall()
        assert {row[0]: content_checksum(*row[:-1]) == row[-1] for row in rows} == {
            "job-1": True,
            "sound": True,
            "damaged": False,
        }
        assert [delivery.id for delivery in advance(connection, subscribed, "run", 0).deliveries] == ["sound"]


@pytest.mark.parametrize("state", [state for state in State if state is not State.READY])
def test_a_job_that_the_disk_has_moved_is_a_dead_letter_at_the_next_start(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    with database() as connection:
        queue = fifo(connection)
        enqueue(connection, queue, JOB, 0)
        move(connection, f"state = {int(state)}")
        recover(connection, {queue.id: queue}, 5)
        if state is not State.DEAD:
            assert "job job-1 is damaged on the disk" in capsys.readouterr().err
        [letter] = admin.letters(connection, [queue], 0, 10)
        assert (letter["payload"], letter["error"].split(":")[0]) == (None, "storage_corrupt")
        recover(connection, {queue.id: queue}, 6)
        assert capsys.readouterr().err == ""


def move(connection: sqlite3.Connection, change: str) -> None:
    """Change where jobs stand as a disk does: without the triggers that keep their marks."""
    connection.executescript(f"DROP TRIGGER moved; UPDATE jobs SET {change}; {MOVED}")


def test_every_way_of_a_job_keeps_its_mark_and_no_way_mends_it() -> None:
    with database() as connection:
        queue = fifo(connection)
        for number in range(3):
            enqueue(connection, queue, NewJob(f"job-{number}", "bank::pay", b"1", group="g"), 0)

        def sound() -> list[bool]:
            return [row[0] for row in connection.execute(f"SELECT {CHECKSUM} IS NOT NULL FROM jobs ORDER BY seq")]

        now = 0
        for outcome in (Outcome.INTERRUPTED, Outcome.RETURNED, Outcome.MISSING, Outcome.FAILED, Outcome.FAILED):
            now += 10_000
            [delivery] = advance(connection, queue, "run", now).deliveries
            assert delivery.id == "job-0"
            settle(connection, delivery, Verdict(outcome, {"code": "x"}), now, 0.5)
            connection.execute("UPDATE jobs SET state = 0 WHERE state = 4")
            assert all(sound())
        [delivery] = advance(connection, queue, "run", now).deliveries
        assert (delivery.id, sound()) == ("job-1", [True] * 3)
        recover(connection, {queue.id: queue}, now)
        assert admin.redrive_all(connection, queue, now) == 1
        assert all(sound())
        move(connection, "spent = spent + 1")
        connection.execute("UPDATE jobs SET due = due + 5, attempt = attempt + 1, spent = 7")
        assert sound() == [False] * 3


def test_one_flipped_bit_in_a_stopped_file_loses_no_job_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "queue.db"
    store = Store(path, SCHEMA)
    broker = Broker(store, "run", lambda: 1_000_000)
    broker.start({"jobs": QueueConfig(concurrency=0)})
    row = plain_row(broker.queues["jobs"], NewJob("job-1", "bank::pay", b"1"), 1_000_000)
    store.run(lambda connection: insert(connection, [row])).result()
    store.close()
    sound = path.read_bytes()
    # The page of the table, where the row's head and its numbers are in front of the name of its function.
    begin = sound.index(b"job-1", sound.index(b"bank::pay") - 60) - 30
    outcomes: Counter[str] = Counter()
    for byte in range(begin, begin + 60):
        for bit in range(8):
            flipped = bytearray(sound)
            flipped[byte] ^= 1 << bit
            path.write_bytes(flipped)
            outcomes[start_after_damage(path)] += 1
            for beside in tmp_path.glob("queue.db?*"):
                beside.unlink()
    capsys.readouterr()
    assert set(outcomes) <= {"refused", "delivered", "dead letter"}, outcomes
    assert min(outcomes["refused"], outcomes["dead letter"]) > 10, outcomes


def start_after_damage(path: Path) -> str:
    """Start on a file and return what has become of its one job; `lost` when nobody would ever hear of it."""
    try:
        store = Store(path, SCHEMA)
    except Refusal:
        return "refused"
    try:
        broker = Broker(store, "run", lambda: 1_000_001)
        broker.start({})
        queue = replace(broker.queues["jobs"], config=QueueConfig())
        deliveries = store.run(lambda connection: advance(connection, queue, "run", 1_000_001).deliveries).result()
        if deliveries:
            delivery = deliveries[0]
            is_whole = (delivery.id, delivery.function_id, delivery.data) == ("job-1", "bank::pay", b"1")
            return "delivered" if is_whole and delivery.attempt == 1 and not delivery.spent else "delivered damaged"
        letters = store.run(lambda connection: admin.letters(connection, [queue], 0, 10)).result()
        return "dead letter" if letters and letters[0]["payload"] is None else "lost"
    except InvocationError as error:
        return "refused" if "damaged" in str(error) else f"failed: {error}"
    finally:
        store.close()


def test_a_damaged_configuration_is_refused_by_its_name() -> None:
    store = Store(None, SCHEMA)
    Broker(store, "run-1", lambda: 0).start({"jobs": QueueConfig()})
    store.run(lambda connection: connection.execute("UPDATE queues SET config = '{}'") and None).result(10)
    with pytest.raises(InvocationError, match="the configuration of queue jobs is damaged on the disk"):
        Broker(store, "run-2", lambda: 0).start({})
    store.close()


OLD = re.sub(r",\s+(checksum|mark) INTEGER NOT NULL( DEFAULT -1)?", "", FIRST_TABLES)


def test_a_file_from_before_checksums_is_upgraded_with_all_that_it_holds(tmp_path: Path) -> None:
    assert "checksum" not in OLD
    store = Store(tmp_path / "queue.db", Schema(SCHEMA.application_id, OLD))

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO queues (name, config) VALUES ('jobs', '{}')")
        connection.execute("INSERT INTO keys VALUES (1, 'once', 'job-1', 99)")
        connection.execute("INSERT INTO failures VALUES ('job-1', 1, 0, 0, '{}')")
        connection.execute(
            "INSERT INTO jobs (id, queue, state, due, created, function_id, data) "
            "VALUES ('job-1', 1, 0, 0, 0, 'f', x'31')"
        )

    store.run(fill).result(10)
    store.close()
    store = Store(tmp_path / "queue.db", SCHEMA)
    broker = Broker(store, "run", lambda: 0)
    broker.start({})

    def check(connection: sqlite3.Connection) -> list[str]:
        for table, columns in CONTENT.items():
            for row in connection.execute(f"SELECT {columns}, checksum FROM {table}"):
                covered = content_checksum if table == "jobs" else row_checksum
                assert covered(*row[:-1]) == row[-1], table
        return [delivery.id for delivery in advance(connection, broker.queues["jobs"], "run", 0).deliveries]

    assert store.run(check).result(10) == ["job-1"]
    store.close()


BEFORE_KEYS = f"""
{FIRST_TABLES}
CREATE INDEX ready ON jobs (queue, priority DESC, seq) WHERE state = 0 AND suspect = 0;
CREATE INDEX running ON jobs (queue) WHERE state = 2;
CREATE UNIQUE INDEX heads ON jobs (queue, grp) WHERE state IN (0, 1, 2, 4) AND grp IS NOT NULL;
CREATE TRIGGER moved AFTER UPDATE OF state ON jobs WHEN new.mark = old.mark BEGIN
  UPDATE jobs SET mark = old.mark + 3 * (new.state - old.state) WHERE seq = new.seq;
END;
"""


def test_a_file_from_before_there_were_keys_is_upgraded_with_its_checksums_and_marks(tmp_path: Path) -> None:
    store = Store(tmp_path / "queue.db", Schema(SCHEMA.application_id, BEFORE_KEYS, SCHEMA.upgrades[:2]))

    def fill(connection: sqlite3.Connection) -> None:
        queue = ("jobs", "{}", None, None, None, None)
        connection.execute(
            "INSERT INTO queues (name, config, checksum) VALUES ('jobs', '{}', ?)", (row_checksum(*queue),)
        )
        for number, state in enumerate((0, 1, 2)):
            content = (f"job-{number}", 1, None, 0, "f", None, None, None, None, b"1")
            connection.execute(
                "INSERT INTO jobs (id, queue, state, due, created, function_id, data, checksum, mark) "
                "VALUES (?, 1, ?, 7, 0, 'f', x'31', ?, ?)",
                (f"job-{number}", state, row_checksum(*content), 3 * state + 7),
            )

    store.run(fill).result(10)
    store.close()
    store = Store(tmp_path / "queue.db", SCHEMA)
    broker = Broker(store, "run", lambda: 9)
    assert broker.start({"jobs": QueueConfig(concurrency_key=ConcurrencyKey("who", 1))}) == 1
    started = store.run(lambda connection: advance(connection, broker.queues["jobs"], "run", 9).deliveries).result(10)
    assert sorted(delivery.id for delivery in started) == ["job-0", "job-1", "job-2"]
    store.close()
