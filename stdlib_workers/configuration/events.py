"""The `configuration` trigger: the payload of an event, and which bindings get it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from iii import InvocationError, TriggerConfig
from stdlib_workers.configuration.entries import Configuration
from stdlib_workers.events import Target, Trace, envelope, target_from

EVENT_TYPES = ("configuration:registered", "configuration:updated", "configuration:deleted")
# Metadata of a binding whose function is asked before a value is taken.
CHECKS = {"checks": True}


class Subscription(NamedTuple):
    """One binding: its filters (None for any) and what it calls."""

    configuration_id: str | None
    event_types: tuple[str, ...] | None
    target: Target

    def wants(self, id: str, event_type: str) -> bool:
        """Tell whether an event matches the filters."""
        return self.configuration_id in (None, id) and (self.event_types is None or event_type in self.event_types)

    def checks(self, id: str) -> bool:
        """Tell whether its function is asked before a value of `id` is taken; not while its worker is away."""
        return self.configuration_id == id and self.target.metadata == CHECKS and self.target.binding is None


def subscription_from(config: TriggerConfig) -> Subscription:
    """Return the subscription of a binding. InvocationError for a filter of the wrong form."""
    fields = config.config if isinstance(config.config, dict) else {}
    for name in ("configuration_id", "condition_function_id"):
        if not isinstance(fields.get(name), str | None):
            raise _refusal(f"{name} of a configuration trigger must be a string, got {fields[name]!r}")
    event_types = fields.get("event_types")
    if event_types is not None:
        if not isinstance(event_types, list) or not all(each in EVENT_TYPES for each in event_types):
            raise _refusal(f"event_types must be a list of {', '.join(EVENT_TYPES)}, got {event_types!r:.80}")
        event_types = tuple(event_types) or None
    return Subscription(fields.get("configuration_id"), event_types, target_from(config))


def _refusal(text: str) -> InvocationError:
    return InvocationError("trigger_registration_failed", text)


def outbox_entry(
    old: Configuration | None,
    new: Configuration | None,
    subscriptions: Iterable[Subscription],
    expand: Callable[[Any], Any],
    trace: Trace | None = None,
) -> bytes | None:
    """Return the outbox entry of a change, None when no subscription wants it. Global bindings are told first."""
    told = new or old
    assert told is not None
    event_type = EVENT_TYPES[2] if new is None else EVENT_TYPES[0] if old is None else EVENT_TYPES[1]
    wanted = [each for each in subscriptions if each.wants(told.id, event_type)]
    if not wanted:
        return None
    wanted.sort(key=lambda each: each.configuration_id is not None)
    event = {
        "type": "configuration",
        "event_type": event_type,
        **told.view(),
        "old_value": None if old is None else expand(old.value),
        "new_value": None if new is None else expand(new.value),
    }
    return envelope(told.id, [each.target for each in wanted], event, trace)
