"""What users write about queues and jobs, checked."""

from __future__ import annotations

from typing import Any

import pytest

from stdlib_workers.queue.model import DEFAULT_CONFIG, NewJob, Queue, QueueConfig
from stdlib_workers.queue.options import (
    check_name,
    options_from,
    parse_config,
    parse_subscriber,
    with_options,
)

FUNCTION = "mail::send"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"max_retry": 3}, "did you mean `max_retries`"),
        ({"concurrency": 0}, "concurrency must be a whole number from 1"),
        ({"concurrency": True}, "got true"),
        ({"type": "lifo"}, '"standard" or "fifo", got "lifo"'),
        ({"type": "fifo"}, "message_group_field is missing"),
        ({"timeout_ms": 0}, "timeout_ms must be"),
        ({"on_dead_letter": "stop"}, '"skip" or "block"'),
    ],
)
def test_a_wrong_configuration_is_refused_by_key(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match="queue emails: ") as caught:
        parse_config("emails", table)
    assert said in str(caught.value)


def test_the_default_queue_is_always_there_and_can_be_changed() -> None:
    assert options_from({})[0] == {"default": DEFAULT_CONFIG}
    changed = options_from({"queue_configs": {"default": {"concurrency": 1, "poll_interval_ms": 5}}})[0]
    assert changed == {"default": QueueConfig(concurrency=1)}


@pytest.mark.parametrize(
    "config",
    [
        {"queues": {}},
        [],
        {"queue_configs": ["a"]},
        {"queue_configs": {"a": 5}},
        {"queue_configs": {" ": {}}},
        {"queue_configs": {"topic:a": {}}},
    ],
)
def test_a_wrong_table_is_refused(config: Any) -> None:
    with pytest.raises(ValueError):
        options_from(config)[0]


def test_names_are_trimmed() -> None:
    assert check_name(" jobs ") == "jobs"


def test_subscribers_speak_camel_case_and_wrong_types_are_ignored() -> None:
    topic, config = parse_subscriber(
        {
            "topic": "orders",
            "condition_function_id": "orders::is_large",
            "queue_config": {"type": "fifo", "maxRetries": "many", "concurrency": 0, "backoffDelayMs": 5, "visible": 1},
            "max_retries": 7,
        }
    )
    expected = QueueConfig(
        type="fifo", concurrency=0, backoff_ms=5, max_retries=7, condition_function_id="orders::is_large"
    )
    assert (topic, config) == ("orders", expected)
    with pytest.raises(ValueError, match="needs a topic"):
        parse_subscriber({})


def test_a_subscriber_may_say_queue_and_what_stands_above_its_table_wins() -> None:
    given = {
        "queue": "orders",
        "maxRetries": 2,
        "backoff_ms": 7,
        "queue_config": {"maxRetries": 9, "backoffDelayMs": 9, "type": "other", "concurrency": 4},
        "description": "ignored",
    }
    assert parse_subscriber(given) == ("orders", QueueConfig(max_retries=2, backoff_ms=7, concurrency=4))
    inert = {"visibilityTimeout": 1, "delaySeconds": 1, "backoffType": "fixed", "maxPriority": 9}
    assert parse_subscriber({"topic": "orders", "queue_config": inert}) == ("orders", QueueConfig())
    assert parse_subscriber({"topic": "orders", "queue_config": "fifo"}) == ("orders", QueueConfig())


@pytest.mark.parametrize("config", [{}, {"topic": ""}, {"topic": " "}, {"topic": 5}, {"queue": None}])
def test_a_subscriber_needs_a_topic(config: Any) -> None:
    with pytest.raises(ValueError, match="needs a topic"):
        parse_subscriber(config)


def test_the_defaults_of_a_queue_are_the_contracts() -> None:
    assert parse_config("q", {}) == QueueConfig("standard", 10, 3, 1000, 1_800_000)
    everything = {
        "type": "fifo",
        "message_group_field": "g",
        "max_priority": 255,
        "priority_field": "p",
        "poll_interval_ms": 1,
        "redeliver_on_engine_restart": True,
    }
    parsed = parse_config("q", everything)
    assert (parsed.message_group_field, parsed.max_priority, parsed.priority_field) == ("g", 255, "p")
    for wrong in ({"max_priority": 0}, {"max_priority": 256}, {"message_group_field": ""}, {"max_retries": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            parse_config("q", wrong)


def placed(payload: Any, options: dict[str, Any], **config: Any) -> NewJob:
    return with_options(Queue(1, "jobs", QueueConfig(**config)), NewJob("id", FUNCTION, b"{}"), payload, options)


@pytest.mark.parametrize(
    ("payload", "options", "config", "field", "value"),
    [
        ({"user": 7}, {}, {"type": "fifo", "message_group_field": "user"}, "group", "7"),
        ({"user": 1.5}, {}, {"type": "fifo", "message_group_field": "user"}, "group", "1.5"),
        ({"user": 7}, {"group": "b"}, {"type": "fifo", "message_group_field": "user"}, "group", "b"),
        (None, {}, {"type": "fifo"}, "group", ""),
        ({}, {}, {}, "group", None),
        ({"level": 400}, {}, {"priority_field": "level"}, "priority", 255),
        ({"level": "high"}, {}, {"priority_field": "level"}, "priority", 0),
        ({}, {"priority": -1}, {}, "priority", 0),
        ({}, {"priority": 9}, {"max_priority": 5}, "priority", 5),
        ({}, {"delay_ms": 1.6}, {}, "delay_ms", 2),
        ({}, {"key": "k"}, {}, "key", "k"),
    ],
)
def test_a_job_gets_its_place_from_options_or_payload(
    payload: Any, options: dict[str, Any], config: dict[str, Any], field: str, value: Any
) -> None:
    assert getattr(placed(payload, options, **config), field) == value


@pytest.mark.parametrize(
    ("payload", "options", "config"),
    [
        ({}, {"group": "a"}, {}),
        ({}, {}, {"type": "fifo", "message_group_field": "user"}),
        ({"user": None}, {}, {"type": "fifo", "message_group_field": "user"}),
        ({"user": ""}, {}, {"type": "fifo", "message_group_field": "user"}),
        ({"user": True}, {}, {"type": "fifo", "message_group_field": "user"}),
        ([], {}, {"type": "fifo", "message_group_field": "user"}),
        ({}, {"delay_ms": -1}, {}),
        ({}, {"delay_ms": "5s"}, {}),
        ({}, {"key": ""}, {}),
        ({}, {"priority": "high"}, {}),
    ],
)
def test_options_that_make_no_sense_are_refused(payload: Any, options: dict[str, Any], config: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        placed(payload, options, **config)


def test_the_only_adapter_is_ours() -> None:
    assert options_from({"adapter": {"name": "builtin", "config": {"store_method": "in_memory"}}})[1]
    assert not options_from({})[1]
    assert not options_from({"adapter": {"name": "builtin", "config": {"file_path": "x"}}})[1]


@pytest.mark.parametrize(
    "adapter",
    [
        *[{"name": name} for name in ("redis", "rabbitmq", "bridge", "kv", None)],
        "builtin",
        {"name": "builtin", "config": {"store_methd": "in_memory"}},
        {"name": "builtin", "config": {"store_method": "memory"}},
        {"name": "builtin", "store_method": "in_memory"},
    ],
)
def test_an_adapter_that_is_not_ours_is_refused(adapter: Any) -> None:
    with pytest.raises(ValueError, match=r"builtin|store_meth"):
        options_from({"adapter": adapter})[1]
