"""The `state` trigger: the payload of an event, and which bindings get it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from iii import InvocationError, TriggerConfig
from stdlib_workers.events import Target, Trace, envelope, target_from
from stdlib_workers.storage import Change, Entry
from stdlib_workers.values import decode, encode


class Subscription(NamedTuple):
    """One binding: its filters (None for any) and what it calls."""

    scope: str | None
    key: str | None
    target: Target

    def wants(self, scope: str, key: str) -> bool:
        """Tell whether a write of that key matches the filters."""
        return self.scope in (None, scope) and self.key in (None, key)


def subscription_from(config: TriggerConfig) -> Subscription:
    """Return the subscription of a binding. InvocationError for a filter that is no string."""
    fields = config.config if isinstance(config.config, dict) else {}
    for name in ("scope", "key", "condition_function_id"):
        if not isinstance(fields.get(name), str | None):
            text = f"{name} of a state trigger must be a string, got {fields[name]!r}"
            raise InvocationError("trigger_registration_failed", text)
    return Subscription(fields.get("scope"), fields.get("key"), target_from(config))


def event_from(change: Change) -> dict[str, Any]:
    """Return the event of a write. A deletion makes one even if the key did not exist, as the contract says."""
    written = "created" if change.old is None else "updated"
    event_type = "deleted" if change.new is None else written
    return {
        "type": "state",
        "event_type": f"state:{event_type}",
        "scope": change.bucket,
        "key": change.key,
        "old_value": value_of(change.old),
        "new_value": value_of(change.new),
    }


def outbox_entry(change: Change, subscriptions: Iterable[Subscription], trace: Trace | None = None) -> bytes | None:
    """Return the outbox entry of a write made within a trace, None when no subscription wants it."""
    targets = [each.target for each in subscriptions if each.wants(change.bucket, change.key)]
    if not targets:
        return None
    ordering_key = encode([change.bucket, change.key]).decode()  # the events of one key stay in order
    return envelope(ordering_key, targets, event_from(change), trace)


def value_of(entry: Entry | None) -> Any:
    """Return the JSON value of an entry, None for nothing."""
    return None if entry is None else decode(entry.value)
