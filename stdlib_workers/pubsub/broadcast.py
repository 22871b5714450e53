"""Publishing: every subscriber is called at once, and no one is waited for.

A subscriber that falls behind has a bounded number of calls on their way; what comes on top is dropped for it alone,
counted, and told in the log.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

from iii import InvocationError, Logger, TriggerConfig
from stdlib_workers.events import Bindings, Caller, Trace, current_trace, fire, target_from
from stdlib_workers.pubsub.topics import matcher
from stdlib_workers.values import Payload

# Calls on their way to one subscriber.
MAX_IN_FLIGHT = 1000


class Subscription:
    """One binding: what it listens to, what it calls, and how far behind it is."""

    __slots__ = ("dropped", "in_flight", "is_for", "target", "topic")

    def __init__(self, config: TriggerConfig) -> None:
        fields = config.config if isinstance(config.config, dict) else {}
        topic = fields.get("topic") or ""
        if not isinstance(topic, str):
            raise InvocationError("trigger_registration_failed", f"topic must be a string, got {topic!r}")
        self.topic = topic
        # As the contract has it: without a topic the binding stands, and never fires.
        self.is_for = matcher(topic) if topic else _never
        self.target = target_from(config)
        self.in_flight = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Subscription {self.topic} -> {self.target.function_id}, {self.in_flight} in flight>"


class Broadcast:
    """The function `publish`."""

    def __init__(self, worker: Caller, bindings: Bindings[Subscription]) -> None:
        self._worker = worker
        self._bindings = bindings
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = Logger(service_name="pubsub")

    async def publish(self, payload: Any) -> None:
        """Call every subscriber of `topic` with `data`; returns when the calls are on their way."""
        fields = Payload("publish", payload)
        topic, data = fields.string("topic"), fields.value("data")
        if not topic:
            raise InvocationError("topic_not_set", "publish: topic is empty")
        for subscription in self._bindings:
            if subscription.is_for(topic):
                self._send(subscription, data)

    def _send(self, subscription: Subscription, data: Any) -> None:
        if subscription.in_flight >= MAX_IN_FLIGHT:
            subscription.dropped += 1
            if subscription.dropped == 1:
                self._log.warn(f"{subscription.target.function_id} is too slow for {subscription.topic}: dropping")
            return
        subscription.in_flight += 1
        # In an empty context: the publisher's deadline must not end what its subscribers do.
        task = asyncio.get_running_loop().create_task(
            self._reach(subscription, data, current_trace()), context=Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reach(self, subscription: Subscription, data: Any, trace: Trace) -> None:
        try:
            await fire(self._worker, subscription.target, data, trace)
        except InvocationError as error:
            self._log.debug(f"{subscription.target.function_id} did not take {subscription.topic}: {error}")
        finally:
            subscription.in_flight -= 1
            self._tell_dropped(subscription)

    def _tell_dropped(self, subscription: Subscription) -> None:
        if subscription.dropped and subscription.in_flight <= MAX_IN_FLIGHT // 2:
            data = {"dropped": subscription.dropped, "topic": subscription.topic}
            self._log.warn(f"{subscription.target.function_id} keeps up again", data)
            subscription.dropped = 0


def _never(_: str) -> bool:
    return False
