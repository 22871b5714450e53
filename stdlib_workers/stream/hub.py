"""The subscriptions of all sockets by group, and the delivery of events to them.

An event is encoded once, and copied for each subscription. Runs on the listener's loop. How far a socket may fall
behind is decided in `subscriber`.
"""

from __future__ import annotations

from typing import Any

from stdlib_workers.stream.events import Group
from stdlib_workers.stream.log import LoggedEvent
from stdlib_workers.stream.subscriber import Subscriber
from stdlib_workers.values import encode


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
