"""Who listens to which group, and handing each event to them: encoded once, one copy a subscription.

Lives on the listener's loop. What a socket may be behind is the subscriber's business.
"""

from __future__ import annotations

from typing import Any

from stdlib_workers.stream.events import Place
from stdlib_workers.stream.log import Logged
from stdlib_workers.stream.subscriber import Subscriber
from stdlib_workers.values import encode


class Subscription:
    """One `join`. Until it is live, events are held: what the subscriber gets first is the state of the group."""

    __slots__ = ("_after", "_held", "_suffix", "id", "item", "place", "subscriber")

    def __init__(self, id: str, place: Place, item: str | None, subscriber: Subscriber) -> None:
        self.id = id
        self.place = place
        self.item = item
        self.subscriber = subscriber
        self._suffix = b',"subscriptionId":' + encode(id) + b"}"
        self._held: list[Logged] | None = []
        self._after = 0

    def offer(self, event: Logged) -> None:
        """Take an event if it is for this subscription."""
        if self.item is not None and self.item != event.item:
            return
        if self._held is not None:
            self._held.append(event)
        elif event.position > self._after:
            self.subscriber.put(message(event) + self._suffix)

    def say(self, envelope: dict[str, Any], **more: Any) -> None:
        """Send the subscriber something that is not in the log."""
        self.subscriber.put(encode({**envelope, **more})[:-1] + self._suffix)

    def go_live(self, missed: list[Logged]) -> None:
        """Send what was missed, then what was held meanwhile, then every event as it comes."""
        held, self._held = self._held or [], None
        for event in [*missed, *held]:
            self.offer(event)
            self._after = max(self._after, event.position)


def message(event: Logged) -> bytes:
    """Return an event as sockets get it, up to where the subscription's id follows."""
    return event.body[:-1] + b',"offset":%d' % event.position


class Hub:
    """The subscriptions of all sockets by group."""

    def __init__(self) -> None:
        self._by_place: dict[Place, dict[tuple[Subscriber, str], Subscription]] = {}

    def add(self, subscription: Subscription) -> None:
        """Add one; the same id of the same socket replaces it."""
        key = subscription.subscriber, subscription.id
        self._by_place.setdefault(subscription.place, {})[key] = subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove one, unless another has taken its place."""
        group = self._by_place.get(subscription.place, {})
        key = subscription.subscriber, subscription.id
        if group.get(key) is subscription:
            del group[key]
        if not group:
            self._by_place.pop(subscription.place, None)

    def deliver(self, event: Logged) -> None:
        """Hand an event to everybody who listens to its group."""
        for subscription in tuple(self._by_place.get(event.place, {}).values()):
            subscription.offer(event)

    def __len__(self) -> int:
        return sum(len(group) for group in self._by_place.values())

    def __repr__(self) -> str:
        return f"<Hub {len(self)} subscriptions, {len(self._by_place)} groups>"
