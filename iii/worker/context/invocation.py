"""The invocation a piece of code runs in: who called, until when, and whether it was cancelled.

A context variable carries it, so it follows tasks and `asyncio.to_thread`. A bare `threading.Thread` starts without
it (Python hands no context to threads before 3.14); run the thread's target in `contextvars.copy_context()`.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _nobody_listens(_: dict[str, Any]) -> None:
    """Progress that nobody asked for."""


class InvocationContext:
    """One running invocation.

    `caller` is the calling function's `{function_id, invocation_id}` or None, `metadata` the sidecar,
    `deadline` a `time.monotonic()` value or None, `cancelled` True once the caller has given up.
    """

    # What most invocations never change stands here once, not in each of them: making one is on the path of every call.
    cancelled = False
    observe_depth = 0
    activation = None
    deadline: float | None = None
    task: Any = None  # once it has begun
    unbegun: Any = None  # the same, from its making to its end
    send_item: Callable[[dict[str, Any]], None] = staticmethod(_nobody_listens)
    window: Any = None  # of a streamed call: how far its items may run ahead of the caller

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message
        # By what it is found while it runs. A call without an id cannot be cancelled.
        self.key: str | int = message.get("invocation_id") or id(self)
        if "deadline_ms" in message and message["deadline_ms"] is not None:
            self.deadline = monotonic() + message["deadline_ms"] / 1000

    @property
    def function_id(self) -> str:
        """The function that was called."""
        function_id: str = self.message["function_id"]
        return function_id

    @property
    def invocation_id(self) -> str | None:
        """What names this call among all others; None where no answer is wanted."""
        return self.message.get("invocation_id")

    @property
    def is_streamed(self) -> bool:
        """Whether the caller takes items and progress as they come."""
        return bool(self.message.get("stream"))

    def report_progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell a caller that streams how far this is: `done` of `total`, in any unit, and a word about it."""
        fields = {"done": done, "total": total, "message": message}
        self.send_item({"progress": {key: value for key, value in fields.items() if value is not None}})

    @property
    def caller(self) -> dict[str, Any] | None:
        """The invocation that made this call, None for a call from outside a handler."""
        return self.message.get("caller")

    @property
    def metadata(self) -> Any:
        """The sidecar that came with the call."""
        return self.message.get("metadata")

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context the call came with; calls made from here carry it on."""
        return self.message.get("traceparent")

    @property
    def baggage(self) -> str | None:
        """The W3C baggage the call came with; calls made from here carry it on."""
        return self.message.get("baggage")

    @property
    def trace(self) -> dict[str, str]:
        """The fields that continue this invocation's trace in another message, those that exist."""
        return {key: self.message[key] for key in ("traceparent", "baggage") if self.message.get(key)}

    @property
    def remaining_ms(self) -> float | None:
        """Milliseconds until the caller's deadline, None without one."""
        return None if self.deadline is None else (self.deadline - monotonic()) * 1000


CURRENT: ContextVar[InvocationContext | None] = ContextVar("iii_invocation", default=None)


def current_invocation() -> InvocationContext | None:
    """Return the invocation the calling code runs in, None outside a handler."""
    return CURRENT.get()
