"""Rows that the disk has changed: named, never run, never served; and files from before rows had checksums."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.queue import admin, catalog
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.delivery import advance
from stdlib_workers.queue.model import NewJob, Queue, QueueConfig, State
from stdlib_workers.queue.new_jobs import enqueue
from stdlib_workers.queue.schema import CONTENT, SCHEMA, TABLES
from stdlib_workers.storage import Schema, Store, row_checksum

JOB = NewJob("job-1", "bank::pay", b'{"to":"ada"}', "n", b'{"m":1}', "00-a-b-01", "k=v", group="g", key="once")


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
    ],
)
def test_a_damaged_job_is_a_dead_letter_and_the_next_of_its_group_runs(
    column: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with database() as connection:
        queue = fifo(connection)
        enqueue(connection, queue, JOB, 0)
        enqueue(connection, queue, NewJob("job-2", "bank::pay", b"2", group="g"), 0)
        connection.execute(f"UPDATE jobs SET {column} = ? WHERE id = 'job-1'", (value,))
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
        assert {row[0]: row_checksum(*row[:-1]) == row[-1] for row in rows} == {
            "job-1": True,
            "sound": True,
            "damaged": False,
        }
        assert [delivery.id for delivery in advance(connection, subscribed, "run", 0).deliveries] == ["sound"]


def test_a_damaged_configuration_is_refused_by_its_name() -> None:
    store = Store(None, SCHEMA)
    Broker(store, "run-1", lambda: 0).start({"jobs": QueueConfig()})
    store.run(lambda connection: connection.execute("UPDATE queues SET config = '{}'") and None).result(10)
    with pytest.raises(InvocationError, match="the configuration of queue jobs is damaged on the disk"):
        Broker(store, "run-2", lambda: 0).start({})
    store.close()


OLD = (
    TABLES.replace(", checksum INTEGER NOT NULL\n", "\n")
    .replace(",\n    checksum INTEGER NOT NULL\n", "\n")
    .replace("expires INTEGER NOT NULL, checksum INTEGER NOT NULL,", "expires INTEGER NOT NULL,")
)


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
                assert row_checksum(*row[:-1]) == row[-1], table
        return [delivery.id for delivery in advance(connection, broker.queues["jobs"], "run", 0).deliveries]

    assert store.run(check).result(10) == ["job-1"]
    store.close()
