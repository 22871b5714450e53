"""Events of streams, groups and their names in the storage, and filters of the `stream` trigger. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from iii import InvocationError, TriggerConfig
from stdlib_workers.events import Target, target_from
from stdlib_workers.values import decode, encode


class Group(NamedTuple):
    stream: str
    id: str

    @property
    def bucket(self) -> str:
        """Its bucket in the storage, as JSON: no character of a name can be taken for a separator."""
        return encode([self.stream, self.id]).decode()

    @property
    def topic(self) -> str:
        return f"log{self.bucket}"


def group_from(bucket: str) -> Group:
    return Group(*decode(bucket.encode()))


def envelope(group: Group, item: str | None, event: dict[str, Any], timestamp_ms: int) -> dict[str, Any]:
    """Return an event of a group as triggers and sockets get it."""
    return {
        "type": "stream",
        "timestamp": timestamp_ms,
        "streamName": group.stream,
        "groupId": group.id,
        "id": item,
        "event": event,
    }


def written(old: Any, new: Any) -> dict[str, Any]:
    """Return the event of a write; where nothing or null was before, the contract calls it a creation."""
    return {"type": "create" if old is None else "update", "data": new}


def deleted(old: Any) -> dict[str, Any]:
    return {"type": "delete", "data": old}


class Filter(NamedTuple):
    """One binding of the `stream` trigger; None stands for any group or item."""

    stream: str
    group: str | None
    item: str | None
    target: Target

    def wants(self, group: Group, item: str | None) -> bool:
        return self.stream == group.stream and self.group in (None, group.id) and self.item in (None, item)


def filter_from(config: TriggerConfig) -> Filter:
    """Return the filter of a binding; an empty string filters nothing. InvocationError without a stream name."""
    fields = config.config if isinstance(config.config, dict) else {}
    names = [fields.get(name) or None for name in ("stream_name", "group_id", "item_id")]
    if not names[0] or not all(isinstance(name, str | None) for name in names):
        text = f"a stream trigger needs a stream_name, and strings as filters, got {fields!r:.200}"
        raise InvocationError("trigger_registration_failed", text)
    return Filter(str(names[0]), names[1], names[2], target_from(config))
