"""One attempt to bring an event to its target, and what comes of it."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Protocol

from iii import InvocationError, Logger
from stdlib_workers.events.bindings import Caller, Target, fire

# After so many attempts that ended with the target's process, the event is given up: it may be what ends the process.
MAX_INTERRUPTIONS = 5
_INTERRUPTED = "invocation_stopped"
# With these errors the target has not had the event: it is offered again.
_NOT_DELIVERED = frozenset({"function_not_found", "worker_unavailable", "overloaded", "engine_stopping", _INTERRUPTED})


class Holder(Protocol):
    """Knows which targets have a binding."""

    def is_live(self, key: str) -> bool: ...

    def holds(self, target: Target) -> bool: ...


class Outcome(Enum):
    """What came of an attempt. DONE: the target has had the event, or is to have it no more."""

    DONE = auto()
    AWAY = auto()
    ENDING = auto()  # this process has lost its engine, and is about to end


class Delivery:
    """Makes attempts through a worker."""

    def __init__(self, worker: Caller, holder: Holder) -> None:
        self._worker = worker
        self._holder = holder
        self._log = Logger(service_name="outbox")
        self._interruptions: dict[tuple[int, str], int] = {}

    async def attempt(self, target: Target, event: dict[str, Any], position: int) -> Outcome:
        """Call the target's condition and function with an event of this position in the journal."""
        if target.binding is not None and not self._holder.is_live(target.binding):
            return Outcome.AWAY if self._holder.holds(target) else Outcome.DONE
        try:
            await fire(self._worker, target, event["payload"], event.get("trace"))
        except InvocationError as error:
            return self._outcome_of(error, target, position)
        self._interruptions.pop((position, target.function_id), None)
        return Outcome.DONE

    def _outcome_of(self, error: InvocationError, target: Target, position: int) -> Outcome:
        if error.code == "SHUTDOWN":
            return Outcome.ENDING
        # A handler that itself called a missing function has had the event.
        is_callees_own = error.code == "function_not_found" and not _names(error, target)
        if error.code not in _NOT_DELIVERED or is_callees_own:
            return Outcome.DONE  # it has had the event, and failed: the engine tells of that
        if error.code == _INTERRUPTED:
            place = position, target.function_id
            self._interruptions[place] = self._interruptions.get(place, 0) + 1
            if self._interruptions[place] >= MAX_INTERRUPTIONS:
                del self._interruptions[place]
                text = (
                    f"an event for {target.function_id} is dropped: its process ended {MAX_INTERRUPTIONS} times on it"
                )
                self._log.error(text)
                return Outcome.DONE
        return Outcome.AWAY


def _names(error: InvocationError, target: Target) -> bool:
    return any(name and name in error.message for name in (target.function_id, target.condition))
