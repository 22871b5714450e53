"""The queues: defined by configuration, by `queue::define`, or by a subscription to a topic. SQL in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson

from stdlib_workers.queue.model import Queue, QueueConfig, config_from
from stdlib_workers.queue.new_jobs import Content, content_checksum
from stdlib_workers.queue.schema import CHECKSUM, CONTENT
from stdlib_workers.storage import check_row, row_checksum

_COLUMNS = f"id, {CONTENT['queues']}, checksum"
# No row has this checksum.
_NEVER = -1
_SELECT = f"SELECT {_COLUMNS} FROM queues"


def define(connection: sqlite3.Connection, name: str, config: QueueConfig) -> tuple[Queue, bool]:
    """Make a named queue, or give it a new configuration. Returns it, and whether anything has changed."""
    existing = find(connection, name)
    if existing is not None and existing.config.has_keys:
        config = replace(config, had_keys=True)  # its jobs wait for keys until they are looked at again
    if existing is not None and existing.config == config:
        return existing, False
    encoded = orjson.dumps(config).decode()
    rows = connection.execute(
        "INSERT INTO queues (name, config, checksum) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE "
        f"SET config = excluded.config, checksum = excluded.checksum RETURNING {_COLUMNS}",
        (name, encoded, row_checksum(name, encoded, None, None, None, None)),
    )
    return _queues(rows)[0], True


def subscribe(connection: sqlite3.Connection, queue: Queue) -> Queue:
    """Make the queue of a subscriber, or renew its configuration; `queue.id` is ignored.

    The first subscriber of a topic gets what was published to the topic before.
    """
    config = orjson.dumps(queue.config).decode()
    is_first = not subscriptions(connection, str(queue.topic))
    fields = (queue.name, config, queue.topic, queue.namespace, queue.function_id, queue.metadata)
    rows = connection.execute(
        f"INSERT INTO queues ({CONTENT['queues']}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET config = excluded.config, metadata = excluded.metadata, "
        f"checksum = excluded.checksum RETURNING {_COLUMNS}",
        (*fields, row_checksum(*fields)),
    )
    stored = _queues(rows)[0]
    if is_first:
        _hand_over(connection, topic_name(str(queue.topic)), stored)
    return stored


def _hand_over(connection: sqlite3.Connection, name: str, queue: Queue) -> None:
    """Give a subscriber what the topic's own queue has kept. A damaged job stays one: its checksum is not made anew."""
    rows = connection.execute(
        f"SELECT seq, {CONTENT['jobs']}, {CHECKSUM} FROM jobs WHERE queue = (SELECT id FROM queues WHERE name = ?)",
        (name,),
    ).fetchall()
    for seq, *fields in rows:
        content = Content(*fields)
        moved = content._replace(
            queue=queue.id, function_id=str(queue.function_id), namespace=queue.namespace, metadata=queue.metadata
        )
        checksum = content_checksum(*moved[:-1]) if content.is_sound else _NEVER
        connection.execute(
            "UPDATE jobs SET queue = ?, function_id = ?, namespace = ?, metadata = ?, checksum = ? WHERE seq = ?",
            (moved.queue, moved.function_id, moved.namespace, moved.metadata, checksum, seq),
        )


def unsubscribe(connection: sqlite3.Connection, topic: str, function_id: str) -> int:
    """Remove a subscription with everything that waits for it; returns how many jobs that were."""
    removed = 0
    for queue in [each for each in subscriptions(connection, topic) if each.function_id == function_id]:
        removed += connection.execute("DELETE FROM jobs WHERE queue = ?", (queue.id,)).rowcount
        connection.execute("DELETE FROM queues WHERE id = ?", (queue.id,))
    return removed


def delete(connection: sqlite3.Connection, queue: Queue) -> int:
    """Remove a queue with its jobs, dead letters and keys; returns how many jobs and letters that were."""
    connection.execute("DELETE FROM failures WHERE job IN (SELECT id FROM jobs WHERE queue = ?)", (queue.id,))
    removed = connection.execute("DELETE FROM jobs WHERE queue = ?", (queue.id,)).rowcount
    # The next queue may get the same id.
    for table in ("keys", "accepted", "throttles"):
        connection.execute(f"DELETE FROM {table} WHERE queue = ?", (queue.id,))
    connection.execute("DELETE FROM queues WHERE id = ?", (queue.id,))
    return removed


def queue_without_subscribers(connection: sqlite3.Connection, topic: str) -> Queue:
    """Return the queue that keeps what is published to a topic without subscribers. It delivers nothing."""
    name = topic_name(topic)
    return find(connection, name) or define(connection, name, QueueConfig(concurrency=0))[0]


def topic_name(topic: str, namespace: str | None = None, function_id: str = "") -> str:
    """Return the name of a subscriber's queue; without a subscriber, of the topic's own. No named queue may have it."""
    subscriber = f"{namespace}/{function_id}" if namespace else function_id
    return f"topic:{topic}>{subscriber}"


def subscriptions(connection: sqlite3.Connection, topic: str) -> list[Queue]:
    """Return the queues of a topic's subscribers, in the order in which they subscribed."""
    return _queues(connection.execute(f"{_SELECT} WHERE topic = ? ORDER BY id", (topic,)))


def find(connection: sqlite3.Connection, name: str) -> Queue | None:
    """Return the queue of this name."""
    return next(iter(_queues(connection.execute(f"{_SELECT} WHERE name = ?", (name,)))), None)


def load(connection: sqlite3.Connection) -> list[Queue]:
    """Return all queues."""
    return _queues(connection.execute(f"{_SELECT} ORDER BY id"))


def _queues(rows: Iterable[Any]) -> list[Queue]:
    queues = []
    for id, *fields, checksum in rows:
        check_row(f"the configuration of queue {fields[0]}", checksum, *fields)
        name, config, *rest = fields
        # What a stored configuration does not say has its default.
        queues.append(Queue(id, name, config_from(orjson.loads(config)), *rest))
    return queues


def pause(connection: sqlite3.Connection, queue: Queue, *, paused: bool) -> bool:
    """Pause or resume a queue, for good; returns whether that changed anything."""
    statement = "UPDATE queues SET paused = ? WHERE id = ? AND paused != ?"
    return bool(connection.execute(statement, (paused, queue.id, paused)).rowcount)
