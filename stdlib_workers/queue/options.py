"""What users write, checked: a queue's configuration, a subscriber's, the options of one enqueue. Pure.

Every error is a ValueError that names the key, what it must be, and what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from iii.config_schema import load_schema, mistakes
from stdlib_workers.queue.limits import KEYS as FLOW_KEYS
from stdlib_workers.queue.limits import NO_KEYS
from stdlib_workers.queue.model import DEFAULT_CONFIG, NewJob, Queue, QueueConfig, config_from
from stdlib_workers.values import check_config, in_memory

# What a table of `queue_configs` may hold; the rest of a config is not written by anybody.
_OWN = ("arguments", "is_declared", "had_keys")
KEYS = tuple(field.name for field in fields(QueueConfig) if field.name not in _OWN)
# The camelCase of subscribers -> our names. Values of a wrong type are ignored there, as the contract says.
SUBSCRIBER_KEYS = {
    "type": "type",
    "maxRetries": "max_retries",
    "concurrency": "concurrency",
    "backoffDelayMs": "backoff_ms",
    "timeoutMs": "timeout_ms",
    "onDeadLetter": "on_dead_letter",
    "messageGroupField": "message_group_field",
}
# The single group of a queue that delivers strictly one at a time.
ONE_GROUP = ""
MAX_DELAY_MS = 10 * 366 * 86_400_000


@cache
def _schema() -> dict[str, Any]:
    """Return the schema of one queue's table."""
    whole = load_schema(Path(__file__).parents[1], "queue") or {}
    schema: dict[str, Any] = whole["properties"]["queue_configs"]["additionalProperties"]
    return schema


def parse_config(name: str, table: Any) -> QueueConfig:
    """Return the configuration of the queue `name`."""
    mistake = next(mistakes(table, _schema()), None)
    if mistake is not None:
        raise ValueError(f"queue {name}: {mistake}")
    return config_from({key: value for key, value in table.items() if key in KEYS and value is not None})


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def parse_subscriber(config: Mapping[str, Any]) -> tuple[str, QueueConfig]:
    """Return topic and configuration of a `durable:subscriber`. ValueError without a topic."""
    topic = config.get("topic") or config.get("queue")
    if not isinstance(topic, str) or not topic.strip():
        raise ValueError("a durable:subscriber needs a topic")
    nested = config.get("queue_config")
    settings = dict(nested) if isinstance(nested, Mapping) else {}
    aliases = {"max_retries": "maxRetries", "backoff_ms": "backoffDelayMs"}
    settings.update(
        {aliases.get(key, key): config[key] for key in config if key in ("maxRetries", "backoffDelayMs", *aliases)}
    )
    for key in FLOW_KEYS:
        if key in settings:
            raise ValueError(
                f"{key} is a key of a named queue; let the subscriber put its messages into one that has it"
            )
    values: dict[str, Any] = {}
    for key, value in settings.items():
        name = SUBSCRIBER_KEYS.get(key)
        if name == "type":
            values[name] = "fifo" if value == "fifo" else "standard"
        elif name is not None and value is not None and _fits(name, value):
            values[name] = value
    condition = config.get("condition_function_id")
    if isinstance(condition, str) and condition:
        values["condition_function_id"] = condition
    if config.get("payload") == "arguments":
        values["arguments"] = config["arguments"]
    return topic, QueueConfig(**values)


def _fits(name: str, value: Any) -> bool:
    is_pause = name == "concurrency" and value == 0 and _is_integer(value)
    return is_pause or next(mistakes(value, _schema()["properties"][name]), None) is None


def with_options(queue: Queue, job: NewJob, payload: Any, options: Mapping[str, Any]) -> NewJob:
    """Return the job with its group, priority, delay and key, from the call's options or from its payload."""
    delay, key = options.get("delay_ms"), options.get("key")
    if delay is None:
        delay = 0
    elif not isinstance(delay, int | float) or isinstance(delay, bool) or not 0 <= delay <= MAX_DELAY_MS:
        raise ValueError(f"delay_ms must be a number of milliseconds from 0 to {MAX_DELAY_MS}, not {delay!r}")
    if delay and queue.config.debounce is not None:
        raise ValueError(f"queue {queue.name} debounces its jobs, which says when they run: leave delay_ms out")
    waits = options.get("wait")
    if waits not in (None, True, False):
        raise ValueError(f"wait must be true or false, not {waits!r}")
    group = _group(queue, payload, options.get("group"))
    if key is not None and (not isinstance(key, str) or not 0 < len(key) <= 1024):
        raise ValueError(f"key must be a string of 1 to 1024 characters, not {key!r}")
    priority = _priority(queue.config, payload, options.get("priority"))
    keys = NO_KEYS if queue.config.is_plain else queue.config.keys_of(job.function_id, job.namespace, payload)
    return replace(job, delay_ms=round(delay), group=group, key=key, priority=priority, keys=keys, waits=bool(waits))


def _group(queue: Queue, payload: Any, group: Any) -> str | None:
    if queue.config.type != "fifo":
        if group is not None:
            raise ValueError(f'queue {queue.name} is not ordered: group needs type = "fifo"')
        return None
    field = queue.config.message_group_field
    if group is None and field is None:
        return ONE_GROUP
    if group is None:
        group = payload.get(field) if isinstance(payload, dict) else None
    if (isinstance(group, str) and group) or (isinstance(group, int | float) and not isinstance(group, bool)):
        return str(group)
    raise ValueError(f"queue {queue.name} is ordered by {field}: the payload must hold it as a string or number")


def _priority(config: QueueConfig, payload: Any, priority: Any) -> int:
    if priority is None and config.priority_field is not None and isinstance(payload, dict):
        value = payload.get(config.priority_field)
        priority = value if _is_integer(value) else None
    if priority is None:
        return 0
    if not _is_integer(priority):
        raise ValueError(f"priority must be an integer, not {priority!r}")
    highest = config.max_priority or 255
    return int(min(max(priority, 0), highest))


def check_name(name: Any) -> str:
    """Return the trimmed name of a named queue."""
    if not isinstance(name, str) or not name.strip() or name.startswith("topic:"):
        raise ValueError(f"a queue's name must be a string that is not blank and not topic:..., not {name!r}")
    return name.strip()


def options_from(config: Any) -> tuple[dict[str, QueueConfig], bool]:
    """Return the worker's named queues, and whether its adapter asks for a store that ends with the process.

    The queue `default` is always there. ValueError for what does not fit the schema.
    """
    check_config("queue", config)
    tables = config.get("queue_configs") or {}
    named = {check_name(name): parse_config(name, table) for name, table in tables.items()}
    return {"default": DEFAULT_CONFIG, **named}, in_memory(config)
