"""The queue worker's functions: what callers send, checked, and what they get.

Every handler makes one call of the broker. Names, shapes and codes are those of the public contract; the dead letters,
`iii::queue::*` and the options of an enqueue go beyond it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from iii import InvocationError, Worker
from iii.declarations import load_declarations
from stdlib_workers.events import current_trace
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.model import NewJob, Queue
from stdlib_workers.queue.new_jobs import ENQUEUE_ERROR, refused
from stdlib_workers.queue.options import check_name, parse_config, with_options
from stdlib_workers.storage import UNUSABLE, map_storage_errors

DECLARED = load_declarations(Path(__file__).parent)
OPTIONS = ("delay_ms", "group", "key", "priority", "wait")
# The engine writes this field into payloads of sessions, so it is never the caller's mistake.
_CALLER = "_caller_worker_id"
_ENQUEUE_FIELDS = {
    *("queue", "function_id", "data", "messageReceiptId", "traceparent", "baggage", "namespace", "metadata"),
    *(*OPTIONS, _CALLER),
}
MAX_PAGE = 1000
WAITING = ("ready", "delayed", "running", "behind", "held", "limited", "filling")
# The code of a failure of the storage, by function, where the contract has one.
CODES = {
    "engine::queue::enqueue": ENQUEUE_ERROR,
    "iii::queue::redrive": "redrive_failed",
    "iii::queue::redrive_message": "redrive_message_failed",
    "iii::queue::discard_message": "discard_message_failed",
    "engine::queue::list_topics": "list_topics_failed",
    "engine::queue::topic_stats": "topic_stats_failed",
    "engine::queue::dlq_topics": "dlq_topics_failed",
    "engine::queue::dlq_messages": "dlq_messages_failed",
}


class Functions:
    """The handlers, over one broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def register(self, worker: Worker) -> None:
        """Register the action `enqueue` and all functions."""
        worker.register_trigger_action(
            "enqueue",
            map_storage_errors(ENQUEUE_ERROR, self.enqueue_action),
            description="Put the call into a queue; options: queue, delay_ms, group, key, priority, wait.",
            **DECLARED.functions["action::enqueue"],
        )
        for function_id, handler in {
            "engine::queue::enqueue": self.enqueue,
            "iii::durable::publish": self.publish,
            "queue::define": self.define,
            "iii::queue::list": self.list_queues,
            "iii::queue::peek": self.peek,
            "iii::queue::cancel": self.cancel,
            "iii::queue::pause": self.pause,
            "iii::queue::resume": self.resume,
            "iii::queue::purge": self.purge,
            "iii::queue::delete": self.delete,
            "iii::queue::redrive": self.redrive,
            "iii::queue::redrive_message": self.redrive_message,
            "iii::queue::discard_message": self.discard_message,
            "iii::queue::unsubscribe": self.unsubscribe,
            "engine::queue::list_topics": self.list_topics,
            "engine::queue::topic_stats": self.topic_stats,
            "engine::queue::dlq_topics": self.dlq_topics,
            "engine::queue::dlq_messages": self.dlq_messages,
        }.items():
            mapped = map_storage_errors(CODES.get(function_id, UNUSABLE), handler)
            worker.register_function(function_id, mapped, **DECLARED.functions[function_id])

    # New jobs

    async def enqueue_action(self, payload: Any) -> Any:
        """Take in a call that was made with the action `enqueue`."""
        action = payload.get("action") or {}
        unknown = sorted(set(action) - {"type", "queue", *OPTIONS})
        if unknown:
            raise refused(
                "invalid_options", f"enqueue has no option {unknown[0]}; there are: queue, {', '.join(OPTIONS)}"
            )
        return await self._enqueue(action.get("queue"), payload, action)

    async def enqueue(self, payload: Any) -> Any:
        """Take in a call; `queue`, `function_id` and `messageReceiptId` must not be blank. With `wait`: its result."""
        fields = _object(payload)
        unknown = sorted(set(fields) - _ENQUEUE_FIELDS)
        if unknown:
            raise refused("invalid_options", f"unknown field {unknown[0]}")
        _text(fields, "messageReceiptId", code=ENQUEUE_ERROR)
        return await self._enqueue(_text(fields, "queue", code="queue_not_set"), fields, fields)

    async def _enqueue(self, name: Any, fields: dict[str, Any], options: dict[str, Any]) -> Any:
        queue = await self._broker.find_named(name) if isinstance(name, str) else None
        if queue is None:
            names = ", ".join(sorted(q.name for q in self._broker.queues.values() if not q.name.startswith("topic:")))
            raise refused(
                "queue_not_found", f"there is no queue {name!r}; define it with queue::define. There are: {names}"
            )
        receipt = _text(fields, "messageReceiptId", code=ENQUEUE_ERROR)
        function_id = _text(fields, "function_id", code=ENQUEUE_ERROR)
        data, metadata = fields.get("data"), fields.get("metadata")
        encoded_metadata = None if metadata is None else orjson.dumps(metadata)
        current = current_trace()  # of a caller that does not say which trace the job belongs to
        keys = "traceparent", "baggage"
        traceparent, baggage = (fields[key] if key in fields else current.get(key) for key in keys)
        namespace = fields.get("namespace")
        job = NewJob(receipt, function_id, orjson.dumps(data), namespace, encoded_metadata, traceparent, baggage)
        config = queue.config
        if options.keys() & OPTIONS or config.type == "fifo" or config.priority_field or not config.is_plain:
            try:
                job = with_options(queue, job, data, options)
            except ValueError as error:
                raise refused("invalid_options", str(error)) from None
        if job.waits:
            return await self._broker.enqueue_and_wait(queue, job)
        return {"messageReceiptId": await self._broker.enqueue(queue, job)}

    async def publish(self, payload: Any) -> None:
        """Give `data` to every subscriber of `topic`."""
        fields = _object(payload)
        topic = _text(fields, "topic", "queue", code="topic_not_set")
        data = fields.get("data")
        encoded = orjson.dumps(data)
        current = current_trace()
        trace = current.get("traceparent"), current.get("baggage")

        def job_for(queue: Queue) -> NewJob:
            job = NewJob(str(uuid4()), queue.function_id or "", encoded, queue.namespace, queue.metadata, *trace)
            return with_options(queue, job, data, {})

        try:
            await self._broker.publish(topic, job_for)
        except ValueError as error:
            raise InvocationError("invalid_payload", str(error)) from None

    async def define(self, payload: Any) -> dict[str, Any]:
        """Make a named queue, or change its configuration; it outlives restarts."""
        fields = _object(payload)
        unknown = sorted(set(fields) - {"queue", "config", _CALLER})
        if unknown:
            raise InvocationError("invalid_config", f"unknown field {unknown[0]}; there are: queue, config")
        try:
            name = check_name(fields.get("queue"))
            config = parse_config(name, fields.get("config") or {})
        except ValueError as error:
            raise InvocationError("invalid_config", str(error)) from None
        return {"queue": name, "changed": await self._broker.define(name, config)}

    # Administration

    async def list_queues(self, _: Any) -> dict[str, Any]:
        """Return every queue with its figures."""
        queues = list(self._broker.queues.values())
        figures = await self._broker.counts(queues)
        rows = [
            {
                "name": queue.topic or queue.name,
                "kind": "topic" if queue.topic is not None or queue.name.startswith("topic:") else "queue",
                "type": queue.config.type,
                "function_id": queue.function_id,
                "concurrency": queue.config.concurrency,
                "consumers": self._consumers(queue),
                "orphaned": self._broker.is_orphaned(queue),
                **counts,
            }
            for queue, counts in zip(queues, figures, strict=True)
        ]
        return {"queues": rows}

    def _consumers(self, queue: Queue) -> int:
        if queue.topic is None:
            return queue.config.concurrency
        return self._broker.scheduler.count_bindings(queue.name)

    async def peek(self, payload: Any) -> dict[str, Any]:
        """Return live jobs of `queue`, the oldest first; `offset`, `limit`."""
        fields = _object(payload)
        jobs: list[dict[str, Any]] = []
        for queue in self._find(fields):
            jobs += await self._broker.peek(queue, *_page(fields))
        return {"messages": jobs}

    async def cancel(self, payload: Any) -> dict[str, Any]:
        """Remove the waiting job `message_id`; what runs already is not stopped."""
        job = _text(_object(payload), "message_id", "messageReceiptId", code="message_id_not_set")
        state = await self._broker.cancel(job)
        if state is None:
            raise _no_message(job)
        return {"message_id": job, "canceled": state not in ("running", "dead"), "state": state}

    async def pause(self, payload: Any) -> dict[str, Any]:
        """Start nothing more of `queue` until it is resumed; outlives restarts."""
        return await self._pause(payload, paused=True)

    async def resume(self, payload: Any) -> dict[str, Any]:
        """Start jobs of `queue` again."""
        return await self._pause(payload, paused=False)

    async def _pause(self, payload: Any, *, paused: bool) -> dict[str, Any]:
        fields = _object(payload)
        changed = await self._broker.pause(self._find(fields), paused=paused)
        return {"queue": _queue_name(fields), "paused": paused, "changed": changed}

    async def purge(self, payload: Any) -> dict[str, Any]:
        """Remove every waiting job of `queue`; what runs and what is dead stays."""
        fields = _object(payload)
        return {"queue": _queue_name(fields), "purged": await self._broker.purge(self._find(fields))}

    async def delete(self, payload: Any) -> dict[str, Any]:
        """Remove the named queue `queue`, which iii.toml no longer declares, with all its jobs and dead letters."""
        name = _queue_name(_object(payload))
        queue = self._broker.queues.get(name)
        if queue is None or queue.topic is not None:
            raise InvocationError("queue_not_found", f"there is no named queue {name!r}")
        return {"queue": name, "deleted": await self._broker.delete(queue)}

    async def redrive(self, payload: Any) -> dict[str, Any]:
        """Deliver all dead letters of `queue` again."""
        fields = _object(payload)
        return {"queue": _queue_name(fields), "redriven": await self._broker.redrive(self._find(fields), None)}

    async def redrive_message(self, payload: Any) -> dict[str, Any]:
        """Deliver the dead letter `message_id` again, with `data` as its new payload if given."""
        fields = _object(payload)
        job = _text(fields, "message_id", code="message_id_not_set")
        data = orjson.dumps(fields["data"]) if "data" in fields else None
        return self._moved(fields, job, await self._broker.redrive(self._find(fields), job, data))

    async def discard_message(self, payload: Any) -> dict[str, Any]:
        """Forget the dead letter `message_id`."""
        fields = _object(payload)
        job = _text(fields, "message_id", code="message_id_not_set")
        return self._moved(fields, job, await self._broker.discard(self._find(fields), job))

    def _moved(self, fields: dict[str, Any], job: str, count: int) -> dict[str, Any]:
        if not count:
            raise _no_message(job)
        return {"queue": _queue_name(fields), "message_id": job, "redriven": count}

    async def unsubscribe(self, payload: Any) -> dict[str, Any]:
        """Remove the subscription of `function_id` to `topic` with all that waits for it."""
        fields = _object(payload)
        topic = _text(fields, "topic", code="topic_not_set")
        function_id = _text(fields, "function_id", code="function_id_not_set")
        return {"topic": topic, "removed": await self._broker.unsubscribe(topic, function_id)}

    # The contract's views

    async def list_topics(self, _: Any) -> list[dict[str, Any]]:
        """Return every topic and named queue once."""
        rows: dict[str, dict[str, Any]] = {}
        for queue in self._broker.queues.values():
            name = queue.topic or queue.name
            row = rows.setdefault(name, {"name": name, "broker_type": _broker_type(queue), "subscriber_count": 0})
            row["subscriber_count"] += self._consumers(queue)
        return [row for name, row in rows.items() if not name.startswith("topic:")]

    async def topic_stats(self, payload: Any) -> dict[str, Any]:
        """Return the figures of a topic or queue; zeros for an unknown one."""
        queues = self._broker.find(_text(_object(payload), "topic", "queue", code="topic_required"))
        figures = await self._broker.counts(queues)
        keys = ("depth", "dlq_depth", *WAITING, "delivered", "failed", "fenced")
        totals = {key: sum(row[key] for row in figures) for key in keys}
        is_paused = any(row["paused"] for row in figures)
        consumers = sum(map(self._consumers, queues))
        return {**totals, "consumer_count": consumers, "paused": is_paused, "config": None}

    async def dlq_topics(self, _: Any) -> list[dict[str, Any]]:
        """Return the topics and queues that have dead letters."""
        queues = list(self._broker.queues.values())
        rows: dict[str, dict[str, Any]] = {}
        for queue, figures in zip(queues, await self._broker.counts(queues), strict=True):
            name = queue.topic or queue.name
            row = rows.setdefault(name, {"topic": name, "broker_type": _broker_type(queue), "message_count": 0})
            row["message_count"] += figures["dlq_depth"]
        return [row for row in rows.values() if row["message_count"]]

    async def dlq_messages(self, payload: Any) -> list[dict[str, Any]]:
        """Return dead letters with the error of every attempt, the newest first; `offset`, `limit`."""
        fields = _object(payload)
        queues = self._broker.find(_text(fields, "topic", "queue", code="topic_required"))
        return await self._broker.letters(queues, *_page(fields))

    def _find(self, fields: dict[str, Any]) -> list[Queue]:
        name = _queue_name(fields)
        queues = self._broker.find(name)
        if not queues:
            raise InvocationError("queue_not_found", f"there is no queue or topic {name!r}")
        return queues


def _broker_type(queue: Queue) -> str:
    """Return the contract's word for what keeps the jobs: a named queue's are calls of functions."""
    return "function_queue" if queue.topic is None and not queue.name.startswith("topic:") else "builtin"


def _no_message(job: str) -> InvocationError:
    return InvocationError("message_not_found", f"there is no such message: {job}")


def _object(payload: Any) -> dict[str, Any]:
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise InvocationError("deserialization_error", f"the payload must be an object, not {payload!r}")
    return payload


def _queue_name(fields: dict[str, Any]) -> str:
    return _text(fields, "queue", "topic", code="queue_not_set")


def _text(fields: dict[str, Any], *names: str, code: str) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value
    raise InvocationError(code, f"{names[0]} must be a string that is not blank, not {fields.get(names[0])!r}")


def _page(fields: dict[str, Any]) -> tuple[int, int]:
    offset, limit = fields.get("offset", 0), fields.get("limit", 50)
    for name, value in (("offset", offset), ("limit", limit)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InvocationError("deserialization_error", f"{name} must be a count, not {value!r}")
    return offset, min(limit, MAX_PAGE)
