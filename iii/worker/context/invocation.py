"""The invocation that a piece of code runs in: its caller, its deadline, and whether it was cancelled.

A context variable holds it, so it follows tasks and `asyncio.to_thread`. A bare `threading.Thread` starts without it
(Python hands no context to threads before 3.14); run the thread's target in `contextvars.copy_context()`.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The entry of the baggage in which the engine names what led to a call.
CAUSES = "iii.causes="


class InvocationContext:
    """One running invocation, as `current_invocation()` returns it.

    `deadline` is a `time.monotonic()` value or None; `message` is the
    call as it came, and must not be changed.
    """

    # What most invocations never change stands here once, not in each of them: making one is on the path of every call.
    is_cancelled = False  # the caller has given up, or the deadline has passed
    has_heard = False  # of its cancellation: what the handler returns from then on is half of its work
    deadline: float | None = None
    task: Any = None  # of an async handler, once the handler has begun
    unbegun: Any = None  # the same task, from its creation to its end
    # Sends an item or a report of progress to a caller that streams; other callers get none.
    send_item: Callable[[dict[str, Any]], None] = staticmethod(lambda _: None)
    window: Any = None  # of a streamed call: how many items may be on their way before the caller has taken them

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message
        # The key of the running invocations. A call without an id cannot be cancelled, and has its object's.
        self.key: str | int = message.get("invocation_id") or id(self)
        if "deadline_ms" in message and message["deadline_ms"] is not None:
            self.deadline = monotonic() + message["deadline_ms"] / 1000

    @property
    def cancelled(self) -> bool:
        """Whether the caller has given up. A handler that has seen this and returns has given up too."""
        if self.is_cancelled:
            self.has_heard = True
        return self.is_cancelled

    @property
    def function_id(self) -> str:
        """The id of the called function."""
        return self.message["function_id"]  # type: ignore[no-any-return]

    @property
    def invocation_id(self) -> str | None:
        """The id of this call among all others; None for a void call."""
        return self.message.get("invocation_id")

    @property
    def is_streamed(self) -> bool:
        """Whether the caller takes items and progress as they come (`stream`)."""
        return bool(self.message.get("stream"))

    def report_progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell a caller that streams how far this is: `done` of `total`, in any unit. Other callers get nothing."""
        fields = {"done": done, "total": total, "message": message}
        self.send_item({"progress": {key: value for key, value in fields.items() if value is not None}})

    @property
    def caller(self) -> dict[str, Any] | None:
        """The calling `{"function_id", "invocation_id"}`, None for a call from outside a handler."""
        return self.message.get("caller")

    @property
    def metadata(self) -> Any:
        """The metadata that the caller sent beside the payload, None without."""
        return self.message.get("metadata")

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context the call came with; calls made from here carry it on."""
        return self.message.get("traceparent")

    @property
    def baggage(self) -> str | None:
        """The W3C baggage the call came with; calls made from here carry it on."""
        baggage = self.message.get("baggage")
        if not baggage or CAUSES not in baggage:
            return baggage
        # What the engine says there to itself is in `trace` alone.
        return ",".join(entry for entry in baggage.split(",") if not entry.strip().startswith(CAUSES)) or None

    @property
    def trace(self) -> dict[str, str]:
        """The `traceparent` and `baggage` that continue this trace in another message, those that exist."""
        return {key: self.message[key] for key in ("traceparent", "baggage") if self.message.get(key)}

    @property
    def remaining_ms(self) -> float | None:
        """Milliseconds until the caller's deadline, None without one."""
        return None if self.deadline is None else (self.deadline - monotonic()) * 1000


CURRENT: ContextVar[InvocationContext | None] = ContextVar("iii_invocation", default=None)


def current_invocation() -> InvocationContext | None:
    """Return the invocation that the calling code runs in, None outside a handler.

    A handler that works for long asks whether its caller still waits:

        invocation = current_invocation()
        if invocation is not None and invocation.cancelled:
            return
    """
    return CURRENT.get()
