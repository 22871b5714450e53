"""How a call is delivered: `TriggerAction` builds the `action` of a request.

Without an action `trigger` waits for the result. `Void` does not wait; `Enqueue` hands the call to a queue; `of` names
an action that some worker provides.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class TriggerActionVoid:
    """Send the call and forget it: `trigger` returns None at once."""

    type = "void"

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": self.type}


class TriggerActionEnqueue:
    """Put the call into `queue`; `trigger` returns the `EnqueueResult` receipt.

    `options` are the queue's: `delay_ms`, `group`, `key`, `priority`; those that are None are left out.
    """

    type = "enqueue"

    def __init__(self, queue: str, **options: Any) -> None:
        self.queue = queue
        self.options = {name: value for name, value in options.items() if value is not None}

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": self.type, "queue": self.queue, **self.options}


class TriggerActionProvided:
    """Hand the call to the worker that provides the action `type`, with that action's own options."""

    def __init__(self, type: str, options: dict[str, Any]) -> None:
        self.type = type
        self.options = options

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": self.type, **self.options}


class TriggerAction:
    """Factories for the `action` of a request.

    worker.trigger({"function_id": "mail::send", "payload": mail, "action": TriggerAction.Enqueue(queue="mails")})
    """

    @staticmethod
    def Void() -> TriggerActionVoid:
        """Send the call and forget it: `trigger` returns None at once, and a failure reaches no caller."""
        return TriggerActionVoid()

    @staticmethod
    def Enqueue(
        *,
        queue: str,
        delay_ms: int | None = None,
        group: str | None = None,
        key: str | None = None,
        priority: int | None = None,
    ) -> TriggerActionEnqueue:
        """Put the call into `queue`; `trigger` returns `{"messageReceiptId"}` as soon as the queue has stored it.

        The queue delivers not before `delay_ms` milliseconds; in order with others of the same `group` (fifo queues);
        once only for the same idempotency `key`; before others of a lower `priority` (0 to 255). InvocationError
        `enqueue_error` when the queue does not take the call.
        """
        return TriggerActionEnqueue(queue, delay_ms=delay_ms, group=group, key=key, priority=priority)

    @staticmethod
    def of(action_id: str, /, **options: Any) -> TriggerActionProvided:
        """Hand the call to the worker that provides the action `action_id`: `TriggerAction.of("delay", seconds=5)`.

        `trigger` returns what the provider returns. InvocationError `action_not_found` when no worker provides it.
        """
        return TriggerActionProvided(action_id, options)


class EnqueueResult(dict[str, str]):
    """The receipt of an enqueued call; `messageReceiptId` is a key and an attribute."""

    @property
    def messageReceiptId(self) -> str:
        """The id under which the queue knows the message."""
        return self["messageReceiptId"]


def action_to_wire(action: Any) -> dict[str, Any] | None:
    """Return the JSON form of an action: an object with `to_wire`, a dict, or None. TypeError for anything else."""
    if action is None or isinstance(action, dict):
        return action
    to_wire = getattr(action, "to_wire", None)
    if callable(to_wire):
        return dict(to_wire())
    raise TypeError(f"action must be a TriggerAction or a dict with a type, not {action!r}")
