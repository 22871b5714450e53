"""Publishing: every subscriber is called at once, and `publish` waits for none of them.

A subscriber has a bounded number of unanswered calls. Further messages are dropped for this subscriber alone, counted,
and reported in the log.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

from iii import InvocationError, Logger, TriggerConfig
from stdlib_workers.events import Bindings, Caller, Trace, current_trace, fire, target_from
from stdlib_workers.pubsub.topics import topic_matcher
from stdlib_workers.values import Payload

# Unanswered calls of one subscriber.
MAX_IN_FLIGHT = 1000


class Subscription:
    """One binding: its topic, the function it calls, and its unanswered calls and dropped messages."""

    __slots__ = ("dropped", "in_flight", "matches", "target", "topic")

    def __init__(self, config: TriggerConfig) -> None:
        fields = config.config if isinstance(config.config, dict) else {}
        topic = fields.get("topic") or ""
        if not isinstance(topic, str):
            raise InvocationError("trigger_registration_failed", f"topic must be a string, got {topic!r}")
        self.topic = topic
        # A binding without a topic is accepted, as the contract has it; published topics are never empty.
        self.matches = topic_matcher(topic)
        self.target = target_from(config)
        self.in_flight = 0
        self.dropped = 0


class Broadcast:
    """The function `publish`."""

    def __init__(self, worker: Caller, bindings: Bindings[Subscription]) -> None:
        self._worker = worker
        self._bindings = bindings
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = Logger(service_name="pubsub")

    async def publish(self, payload: Any) -> None:
        """Call every subscriber of `topic` with `data`, and return without waiting for them."""
        fields = Payload("publish", payload)
        topic, data = fields.string("topic"), fields.value("data")
        if not topic:
            raise InvocationError("topic_not_set", "publish: topic is empty")
        for subscription in self._bindings:
            if subscription.matches(topic):
                self._send(subscription, data)

    def _send(self, subscription: Subscription, data: Any) -> None:
        if subscription.in_flight >= MAX_IN_FLIGHT:
            subscription.dropped += 1
            if subscription.dropped == 1:
                self._log.warn(f"{subscription.target.function_id} is too slow for {subscription.topic}: dropping")
            return
        subscription.in_flight += 1
        # In an empty context: the publisher's deadline is not that of its subscribers.
        call = self._call(subscription, data, current_trace())
        task = asyncio.get_running_loop().create_task(call, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, subscription: Subscription, data: Any, trace: Trace) -> None:
        try:
            await fire(self._worker, subscription.target, data, trace)
        except InvocationError:
            pass  # the engine tells of every failed call that is made for an event
        finally:
            subscription.in_flight -= 1
            if subscription.dropped and subscription.in_flight <= MAX_IN_FLIGHT // 2:
                data = {"dropped": subscription.dropped, "topic": subscription.topic}
                self._log.warn(f"{subscription.target.function_id} keeps up again", data)
                subscription.dropped = 0
