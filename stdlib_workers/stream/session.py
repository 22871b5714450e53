"""What one socket says: `join` and `leave`, with their triggers. No I/O: replies go into the subscriber's queue.

Messages of a socket are handled one after the other. What cannot be understood is ignored, as the contract says.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from iii import InvocationError, Logger
from stdlib_workers.events import Caller, Target, fire
from stdlib_workers.stream.events import Place, envelope
from stdlib_workers.stream.functions import Stream
from stdlib_workers.stream.hub import Hub, Subscription
from stdlib_workers.stream.log import EventLog
from stdlib_workers.stream.subscriber import Subscriber
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
    place: Place
    item: str | None
    offset: int | None


def join_from(text: str | bytes) -> Join | None:
    """Return what a socket's message asks for, None when it cannot be understood. Pure."""
    try:
        message = decode(text.encode() if isinstance(text, str) else text)
        data = message["data"]
        names = [data[name] for name in ("subscriptionId", "streamName", "groupId")]
        item, offset = data.get("id"), data.get("offset")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    is_sound = all(isinstance(name, str) for name in names) and isinstance(item, str | None)
    if not is_sound or message.get("type") not in ("join", "leave"):
        return None
    resumes = isinstance(offset, int) and not isinstance(offset, bool)
    return Join(message["type"], names[0], Place(names[1], names[2]), item, offset if resumes else None)


class Session:
    """The subscriptions of one socket."""

    def __init__(self, services: Services, subscriber: Subscriber) -> None:
        self._services = services
        self._subscriber = subscriber
        self._subscriptions: dict[str, Subscription] = {}
        self._log = Logger(service_name="stream")

    async def receive(self, text: str | bytes) -> None:
        """Act on one message."""
        join = join_from(text)
        if join is None:
            return
        if join.kind == "join":
            await self._join(join)
        elif (subscription := self._subscriptions.get(join.subscription_id)) is not None:
            await self._leave(subscription)

    async def end(self) -> None:
        """Leave everything: the socket is gone."""
        for subscription in tuple(self._subscriptions.values()):
            await self._leave(subscription)

    async def _join(self, join: Join) -> None:
        subscription = Subscription(join.subscription_id, join.place, join.item, self._subscriber)
        is_full = len(self._subscriptions) >= MAX_SUBSCRIPTIONS and join.subscription_id not in self._subscriptions
        if is_full or not await self._is_allowed(subscription):
            subscription.say(self._envelope(join.place, join.item, {"type": "unauthorized"}))
            return
        before = self._subscriptions.get(join.subscription_id)
        if before is not None:
            self._services.hub.remove(before)
        self._subscriptions[join.subscription_id] = subscription
        # Listening begins before the state is read: what happens in between is held, and sent after it.
        self._services.hub.add(subscription)
        await self._begin(subscription, join.offset)

    async def _begin(self, subscription: Subscription, offset: int | None) -> None:
        try:
            missed = None if offset is None else await self._services.log.since(subscription.place, offset)
            if missed is None:
                await self._sync(subscription)
        except InvocationError as error:
            self._log.error(f"the state of {subscription.place} could not be read: {error}")
            missed = None
        subscription.go_live(missed or [])

    async def _sync(self, subscription: Subscription) -> None:
        stream, place, item = self._services.stream, subscription.place, subscription.item
        # The offset first: the state may be newer than it says, never older.
        offset = await self._services.log.latest()
        data = await stream.read_group(place) if item is None else await stream.read(place, item)
        subscription.say(self._envelope(place, item, {"type": "sync", "data": data}), offset=offset)

    async def _leave(self, subscription: Subscription) -> None:
        self._services.hub.remove(subscription)
        self._subscriptions.pop(subscription.id, None)
        for target in self._services.leaves:
            try:
                await fire(self._services.worker, target, self._event(subscription))
            except InvocationError as error:
                self._log.warn(f"the stream:leave handler {target.function_id} failed: {error}")

    async def _is_allowed(self, subscription: Subscription) -> bool:
        """Ask every join handler, as the contract says; it takes one to deny."""
        verdicts = [await self._allows(target, subscription) for target in self._services.joins]
        return all(verdicts)

    async def _allows(self, target: Target, subscription: Subscription) -> bool:
        """Ask a join handler; one that fails denies."""
        try:
            verdict = await fire(self._services.worker, target, self._event(subscription))
        except InvocationError as error:
            self._log.warn(f"the stream:join handler {target.function_id} failed, so nobody may join: {error}")
            return False
        return not (isinstance(verdict, dict) and verdict.get("unauthorized") is True)

    def _event(self, subscription: Subscription) -> dict[str, Any]:
        return {
            "subscription_id": subscription.id,
            "stream_name": subscription.place.stream,
            "group_id": subscription.place.group,
            "id": subscription.item,
            "context": self._subscriber.context,
        }

    def _envelope(self, place: Place, item: str | None, event: dict[str, Any]) -> dict[str, Any]:
        return envelope(place, item, event, int(time.time() * 1000))
