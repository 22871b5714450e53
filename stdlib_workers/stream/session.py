"""The messages of one socket, `join` and `leave`, and their triggers. No I/O: replies go into the subscriber's queue.

Messages of a socket are handled one after the other. Malformed messages are ignored, as the contract says.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from iii import InvocationError, Logger
from iii.failure_text import unnamed
from stdlib_workers.events import Caller, Target, fire
from stdlib_workers.stream.events import Group, envelope
from stdlib_workers.stream.functions import Stream
from stdlib_workers.stream.hub import Hub, Subscriber, Subscription
from stdlib_workers.stream.log import EventLog
from stdlib_workers.values import decode

MAX_SUBSCRIPTIONS = 1000


class Services(NamedTuple):
    """What all sessions share. `joins` and `leaves` are the bindings of the two trigger types."""

    stream: Stream
    log: EventLog
    hub: Hub
    worker: Caller
    joins: Iterable[Target]
    leaves: Iterable[Target]


class Join(NamedTuple):
    """A decoded `join` or `leave`."""

    kind: str
    subscription_id: str
    group: Group
    item: str | None
    offset: int | None


def join_from(text: str | bytes) -> Join | None:
    """Return a socket's message, None when it is malformed. Pure."""
    try:
        message = decode(text.encode() if isinstance(text, str) else text)
        data = message["data"]
        names = [data[name] for name in ("subscriptionId", "streamName", "groupId")]
        item, offset = data.get("id"), data.get("offset")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    is_well_formed = all(isinstance(name, str) for name in names) and isinstance(item, str | None)
    if not is_well_formed or message.get("type") not in ("join", "leave"):
        return None
    has_offset = isinstance(offset, int) and not isinstance(offset, bool)
    return Join(message["type"], names[0], Group(names[1], names[2]), item, offset if has_offset else None)


class Session:
    """The subscriptions of one socket."""

    def __init__(self, services: Services, subscriber: Subscriber) -> None:
        self._services = services
        self._subscriber = subscriber
        self._subscriptions: dict[str, Subscription] = {}
        self._log = Logger(service_name="stream")

    async def receive(self, text: str | bytes) -> None:
        if (join := join_from(text)) is None:
            return
        if join.kind == "join":
            await self._join(join)
        elif (subscription := self._subscriptions.get(join.subscription_id)) is not None:
            await self._leave(subscription)

    async def end(self) -> None:
        """Leave all subscriptions: the socket is closed."""
        for subscription in tuple(self._subscriptions.values()):
            await self._leave(subscription)

    async def _join(self, join: Join) -> None:
        subscription = Subscription(join.subscription_id, join.group, join.item, self._subscriber)
        is_full = len(self._subscriptions) >= MAX_SUBSCRIPTIONS and join.subscription_id not in self._subscriptions
        if is_full or not await self._is_allowed(subscription):
            subscription.send(self._envelope(join.group, join.item, {"type": "unauthorized"}))
            return
        replaced = self._subscriptions.get(join.subscription_id)
        if replaced is not None:
            self._services.hub.remove(replaced)
        self._subscriptions[join.subscription_id] = subscription
        # Added before the state is read: events in between are held, and sent after it.
        self._services.hub.add(subscription)
        stream, log, group, item = self._services.stream, self._services.log, join.group, join.item
        try:
            missed = None if join.offset is None else await log.since(group, join.offset)
            if missed is None:
                # The offset is read first: the state may be newer than the offset, and never older.
                latest = await log.latest()
                data = await stream.read_group(group) if item is None else await stream.read(group, item)
                subscription.send(self._envelope(group, item, {"type": "sync", "data": data}), offset=latest)
        except InvocationError as error:
            self._log.error(f"the state of {group} could not be read: {error}")
            missed = None
        subscription.go_live(missed or [])

    async def _leave(self, subscription: Subscription) -> None:
        self._services.hub.remove(subscription)
        self._subscriptions.pop(subscription.id, None)
        for target in self._services.leaves:
            try:
                await fire(self._services.worker, target, self._event(subscription))
            except InvocationError as error:
                why = f"{error.code}: {unnamed(target.function_id, error.message)}"
                self._log.warn(f"the stream:leave handler {target.function_id} failed: {why}")

    async def _is_allowed(self, subscription: Subscription) -> bool:
        """Call every join handler, as the contract says. One that denies or fails is enough to refuse the socket."""
        is_allowed = True
        for target in self._services.joins:
            try:
                result = await fire(self._services.worker, target, self._event(subscription))
            except InvocationError as error:
                why = f"{error.code}: {unnamed(target.function_id, error.message)}"
                self._log.warn(f"the stream:join handler {target.function_id} failed, so nobody may join: {why}")
                is_allowed = False
            else:
                is_allowed &= not (isinstance(result, dict) and result.get("unauthorized") is True)
        return is_allowed

    def _event(self, subscription: Subscription) -> dict[str, Any]:
        return {
            "subscription_id": subscription.id,
            "stream_name": subscription.group.stream,
            "group_id": subscription.group.id,
            "id": subscription.item,
            "context": self._subscriber.context,
        }

    def _envelope(self, group: Group, item: str | None, event: dict[str, Any]) -> dict[str, Any]:
        return envelope(group, item, event, int(time.time() * 1000))
