"""What a stream says: envelopes, the `stream` trigger's filters, and names of places in the storage. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from iii import InvocationError, TriggerConfig
from stdlib_workers.events import Target, target_from
from stdlib_workers.values import decode, encode


class Place(NamedTuple):
    """A group of a stream."""

    stream: str
    group: str

    @property
    def bucket(self) -> str:
        """Its name in the storage; JSON, so that no character in a name can be taken for a separator."""
        return encode([self.stream, self.group]).decode()

    @property
    def topic(self) -> str:
        """The journal topic of its events."""
        return f"log{self.bucket}"


def place_from(bucket: str) -> Place:
    """Return the group of a storage bucket."""
    return Place(*decode(bucket.encode()))


def envelope(place: Place, item: str | None, event: dict[str, Any], timestamp_ms: int) -> dict[str, Any]:
    """Return an event as triggers and sockets get it."""
    return {
        "type": "stream",
        "timestamp": timestamp_ms,
        "streamName": place.stream,
        "groupId": place.group,
        "id": item,
        "event": event,
    }


def written(old: Any, new: Any) -> dict[str, Any]:
    """Return the event of a write; the contract calls it a creation when nothing or null was there."""
    return {"type": "create" if old is None else "update", "data": new}


def deleted(old: Any) -> dict[str, Any]:
    """Return the event of a removal."""
    return {"type": "delete", "data": old}


def custom(kind: str, data: Any) -> dict[str, Any]:
    """Return the event of a `stream::send`."""
    return {"type": "event", "event": {"type": kind, "data": data}}


class Filter(NamedTuple):
    """One binding of the `stream` trigger; None stands for any group or item."""

    stream: str
    group: str | None
    item: str | None
    target: Target

    def wants(self, place: Place, item: str | None) -> bool:
        """Tell whether an event is meant."""
        return self.stream == place.stream and self.group in (None, place.group) and self.item in (None, item)


def filter_from(config: TriggerConfig) -> Filter:
    """Return what a binding asks for. InvocationError without a stream name; an empty filter is none."""
    fields = config.config if isinstance(config.config, dict) else {}
    names = [fields.get(name) or None for name in ("stream_name", "group_id", "item_id")]
    if not names[0] or not all(isinstance(name, str | None) for name in names):
        text = f"a stream trigger needs a stream_name, and strings as filters, got {fields!r:.200}"
        raise InvocationError("trigger_registration_failed", text)
    return Filter(str(names[0]), names[1], names[2], target_from(config))
