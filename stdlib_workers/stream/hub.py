"""The bounded queue of each socket, the subscriptions of all sockets by group, and the delivery of events to them.

An event is encoded once, and copied for each subscription. A socket that does not read fills its queue: then it is
closed with 1013, before it fills the memory; other sockets are not affected. Runs on the listener's loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from stdlib_workers.stream.events import Group
from stdlib_workers.stream.log import LoggedEvent
from stdlib_workers.values import encode

MAX_ITEMS = 1000
MAX_BYTES = 8 * 1024 * 1024
TRY_AGAIN_LATER = 1013


class Socket(Protocol):
    """The part of a WebSocket that is written to; `send` returns when the socket takes more."""

    async def send(self, message: str, /) -> None: ...

    async def close(self, code: int, reason: str) -> None: ...


class Subscriber:
    """The queue of one socket. `context`: what the auth function returned for it."""

    def __init__(self, socket: Socket, context: object = None) -> None:
        self.context = context
        self._socket = socket
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._overrun = asyncio.Event()

    @property
    def is_cut(self) -> bool:
        return self._overrun.is_set()

    def put(self, message: bytes) -> None:
        """Queue a message; over the bounds, drop the queue and have the socket closed."""
        if self.is_cut:
            return
        self._queue.append(message)
        self._bytes += len(message)
        self._filled.set()
        # A lone message may be larger: a group that does not fit could never be shown otherwise.
        if len(self._queue) > MAX_ITEMS or (self._bytes > MAX_BYTES and len(self._queue) > 1):
            self._queue.clear()
            self._overrun.set()

    async def write(self) -> None:
        """Write queued messages for ever. Raises the error of the connection when it is closed."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                message = self._queue.popleft()
                self._bytes -= len(message)
                await self._socket.send(message.decode())

    async def cut(self) -> None:
        """Wait until the socket has fallen behind, then close it."""
        await self._overrun.wait()
        await self._socket.close(TRY_AGAIN_LATER, "slow_consumer")


class Subscription:
    """One `join`. Events are held until it is live: the subscriber gets the state of the group first."""

    __slots__ = ("_after", "_held", "_suffix", "group", "id", "item", "subscriber")

    def __init__(self, id: str, group: Group, item: str | None, subscriber: Subscriber) -> None:
        self.id = id
        self.group = group
        self.item = item
        self.subscriber = subscriber
        # What each message ends with, in place of the closing brace of its event.
        self._suffix = b',"subscriptionId":' + encode(id) + b"}"
        self._held: list[LoggedEvent] | None = []
        self._after = 0

    def offer(self, event: LoggedEvent) -> None:
        """Send an event to the subscriber if it asked for the item; hold it while the subscription is not live."""
        if self.item is not None and self.item != event.item:
            return
        if self._held is not None:
            self._held.append(event)
        elif event.position > self._after:
            self.subscriber.put(event.body[:-1] + b',"offset":%d' % event.position + self._suffix)

    def send(self, envelope: dict[str, Any], **fields: Any) -> None:
        """Send the subscriber an envelope that is not in the log, with further fields."""
        self.subscriber.put(encode({**envelope, **fields})[:-1] + self._suffix)

    def go_live(self, missed: list[LoggedEvent]) -> None:
        """Send the events that were missed, then those that were held meanwhile; from now on, each one at once."""
        held, self._held = self._held or [], None
        for event in [*missed, *held]:
            self.offer(event)
            self._after = max(self._after, event.position)


class Hub:
    """The subscriptions of all sockets by group."""

    def __init__(self) -> None:
        self._by_group: dict[Group, dict[tuple[Subscriber, str], Subscription]] = {}

    def add(self, subscription: Subscription) -> None:
        """Add a subscription; it replaces the one with the same id of the same socket."""
        key = subscription.subscriber, subscription.id
        self._by_group.setdefault(subscription.group, {})[key] = subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription, unless another one has replaced it."""
        subscriptions = self._by_group.get(subscription.group, {})
        key = subscription.subscriber, subscription.id
        if subscriptions.get(key) is subscription:
            del subscriptions[key]
        if not subscriptions:
            self._by_group.pop(subscription.group, None)

    def deliver(self, event: LoggedEvent) -> None:
        for subscription in tuple(self._by_group.get(event.group, {}).values()):
            subscription.offer(event)

    def __len__(self) -> int:
        return sum(map(len, self._by_group.values()))
