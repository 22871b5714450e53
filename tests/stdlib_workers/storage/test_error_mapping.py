"""The errors of callers when the storage fails: the contract's code for each function, the reason in the details."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.functions import Functions
from stdlib_workers.queue.model import QueueConfig
from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.state.functions import CODES as STATE_CODES
from stdlib_workers.state.functions import Options, State
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store, map_storage_errors
from stdlib_workers.storage.errors import FULL, StorageFailure
from stdlib_workers.stream.functions import CODES as STREAM_CODES
from tests.support.stream_setup import StreamSetup

KEY = {"scope": "s", "key": "k"}
GROUP = {"stream_name": "s", "group_id": "g"}
ITEM = {**GROUP, "item_id": "i"}


class FullDisk(Store):
    """A store whose disk has no room from the moment that `is_full` is set."""

    is_full = False

    def run(self, command: Callable[[sqlite3.Connection], Any], **options: Any) -> Any:
        """Run the command, or fail as SQLite does."""

        def fail(_: sqlite3.Connection) -> Any:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        return super().run(fail if self.is_full else command, **options)


def told(code: str, handler: Callable[[Any], Any], payload: Any) -> InvocationError:
    """Return the error that a caller of a function gets."""
    mapped = map_storage_errors(code, handler)

    async def call() -> Any:
        result = mapped(payload)
        return await result if inspect.isawaitable(result) else result

    with pytest.raises(InvocationError) as caught:
        asyncio.run(call())
    return caught.value


@pytest.fixture
def disk() -> Iterator[FullDisk]:
    store = FullDisk(None, KEY_VALUE_SCHEMA)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("name", "payload", "code"),
    [
        ("set", {**KEY, "value": 1}, "SET_ERROR"),
        ("get", KEY, "GET_ERROR"),
        ("get_entry", KEY, "GET_ERROR"),
        ("delete", KEY, "DELETE_ERROR"),
        ("update", {**KEY, "ops": []}, "UPDATE_ERROR"),
        ("once", KEY, "UPDATE_ERROR"),
        ("list", KEY, "LIST_ERROR"),
        ("list_keys", KEY, "LIST_ERROR"),
        ("list_groups", {}, "LIST_GROUPS_ERROR"),
        ("list_entries", KEY, "LIST_ERROR"),
    ],
)
def test_q14_a_failure_of_the_storage_has_the_contracts_code(
    disk: FullDisk, name: str, payload: dict[str, Any], code: str
) -> None:
    state = State(SqliteKeyValue(disk), Options())
    disk.is_full = True
    error = told(STATE_CODES[name], getattr(state, name), payload)
    assert (error.code, error.details["reason"], error.retryable) == (code, FULL, True)
    disk.is_full = False
    assert state.get(KEY) is None


@pytest.mark.parametrize(
    ("name", "payload", "code"),
    [
        ("set", {**ITEM, "data": 1}, "STREAM_SET_ERROR"),
        ("get", ITEM, "STREAM_GET_ERROR"),
        ("delete", ITEM, "STREAM_DELETE_ERROR"),
        ("update", {**ITEM, "ops": []}, "STREAM_UPDATE_ERROR"),
        ("list", GROUP, "STREAM_GET_GROUP_ERROR"),
        ("list_groups", GROUP, "STREAM_LIST_GROUPS_ERROR"),
        ("list_all", {}, "STREAM_LIST_ALL_ERROR"),
        ("send", {**GROUP, "type": "t", "data": 1}, "STREAM_SEND_ERROR"),
    ],
)
def test_q14_a_stream_tells_it_under_its_own_codes(name: str, payload: dict[str, Any], code: str) -> None:
    setup = StreamSetup()
    setup.store.close()
    error = told(STREAM_CODES[name], getattr(setup.stream, name), payload)
    assert (error.code, error.details["reason"]) == (code, "storage_error")
    setup.background.stop()


class Registrations:
    """Stands for a Worker: keeps the handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Any], Any]] = {}

    def register_function(self, function_id: str, handler: Callable[[Any], Any], **_: Any) -> None:
        """Keep a function's handler."""
        self.handlers[function_id] = handler

    def register_trigger_action(self, name: str, handler: Callable[[Any], Any], **_: Any) -> None:
        """Keep an action's handler."""
        self.handlers[name] = handler


@pytest.mark.parametrize(
    ("function_id", "code"),
    [
        ("enqueue", "enqueue_error"),
        ("engine::queue::enqueue", "enqueue_error"),
        ("iii::queue::redrive", "redrive_failed"),
        ("iii::queue::redrive_message", "redrive_message_failed"),
        ("iii::queue::discard_message", "discard_message_failed"),
        ("engine::queue::topic_stats", "topic_stats_failed"),
        ("engine::queue::dlq_topics", "dlq_topics_failed"),
        ("engine::queue::dlq_messages", "dlq_messages_failed"),
        ("iii::durable::publish", "storage_error"),
    ],
)
def test_q14_a_queue_tells_it_under_its_own_codes(function_id: str, code: str) -> None:
    store, registered = Store(None, SCHEMA), Registrations()
    broker = Broker(store, "run", lambda: 1)
    broker.start({"jobs": QueueConfig()})
    Functions(broker).register(registered)  # type: ignore[arg-type]
    store.close()
    payload = {
        "queue": "jobs",
        "topic": "jobs",
        "function_id": "f",
        "messageReceiptId": "r",
        "message_id": "m",
        "data": 1,
    }
    sent = {key: payload[key] for key in ("queue", "function_id", "messageReceiptId", "data")}
    given = {**payload, "action": {"queue": "jobs"}} if function_id == "enqueue" else payload
    with pytest.raises(InvocationError) as caught:
        asyncio.run(registered.handlers[function_id](sent if function_id.endswith("::enqueue") else given))
    assert caught.value.code == code


def test_what_a_handler_raises_by_itself_passes() -> None:
    def refuse(_: Any) -> None:
        raise InvocationError("CONFLICT", "the value is another one by now", details={"version": 3})

    async def refuse_later(payload: Any) -> None:
        refuse(payload)

    for handler in (refuse, refuse_later):
        assert told("SET_ERROR", handler, {}).code == "CONFLICT"


def test_a_failure_keeps_what_it_knows() -> None:
    failure = StorageFailure("storage_corrupt", "the stored value is damaged", details={"key": "k"})
    error = failure.with_code("GET_ERROR")
    assert (error.code, error.message) == ("GET_ERROR", "storage_corrupt: the stored value is damaged")
    assert error.details == {"key": "k", "reason": "storage_corrupt"}
