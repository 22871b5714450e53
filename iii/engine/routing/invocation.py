"""One call under way, the heap of all deadlines, and the bounds of the call table. Pure."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from iii.engine.routing.causes import Causes
    from iii.engine.routing.peer import Peer
    from iii.engine.routing.registry import Function

# Seconds. A call that ends sooner never enters the heap of deadlines: most calls do.
TICK = 0.02


class Invocation(Struct, gc=False, eq=False):
    """A call between its arrival and its outcome.

    A call in the table is waiting (in its owner's queue), unresolved (its function is not registered yet) or dispatched
    (it has a `callee`). Abandoned calls are dispatched ones whose caller has got an error or gave up.

    `origin` is the peer that made the call. `caller` is the same peer as long as it waits for the outcome, and None for
    void calls and for callers that left or gave up. `callee` is None until the call is dispatched. `line` is what the
    callee gets, kept because the call may have to go to another instance.
    """

    id: str
    function: Function
    line: bytes
    origin: Peer
    deadline: float
    timeout: float
    caller: Peer | None = None
    callee: Peer | None = None
    held: int = 0  # bytes that the budget holds for it, by its origin, while it is in the table
    parent: Invocation | None = None
    depth: int = 1
    causes: Causes | None = None  # of what this call does: itself, and what led to it; None until they are asked for
    is_caused: bool = False  # an event, a job or a logged line led to it
    line_end: int = 0  # `callee.enqueued` right after `line`: once `callee.written` is there, the call has started
    attempt: int = 1
    receipt: str | None = None  # of an enqueued call: its caller gets this instead of the provider's result
    is_waiting: bool = False
    is_abandoned: bool = False  # no caller waits any more, but the callee still runs it
    awaits_end: bool = False  # after its deadline the caller waits on, until the callee has really ended
    job: str | None = None  # of an abandoned call that awaited its end: whose attempt it is
    is_overdue: bool = False  # it awaits its end, and its deadline has passed
    is_done: bool = False

    @property
    def is_started(self) -> bool:
        """Whether the callee's transport has taken the whole line: the callee may be running the call."""
        return self.callee is not None and self.callee.written >= self.line_end

    @property
    def chain(self) -> list[str]:
        """Function ids from the outermost call to this one."""
        ids = [self.function.id]
        parent = self.parent
        while parent is not None:
            ids.append(parent.function.id)
            parent = parent.parent
        return ids[::-1]


class Deadlines:
    """All deadlines in one heap, with one timer. Finished calls are dropped lazily.

    A new call waits in `unsorted` for one tick before it enters the heap: short calls cost one list append each, and
    the heap does not fill with calls that have ended.
    """

    def __init__(self) -> None:
        self.unsorted: list[Invocation] = []
        self.add = self.unsorted.append  # the hot path adds a call without a method between
        self._heap: list[tuple[float, int, Invocation]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self.unsorted) + len(self._heap)

    def expired(self, now: float) -> list[Invocation]:
        """Return the calls whose deadline has passed, earliest first, and forget them."""
        for invocation in self.unsorted:
            if not invocation.is_done:
                self._count += 1
                heapq.heappush(self._heap, (invocation.deadline, self._count, invocation))
        self.unsorted.clear()
        if len(self._heap) > 64 and sum(not entry[2].is_done for entry in self._heap) * 2 < len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].is_done]
            heapq.heapify(self._heap)
        due: list[Invocation] = []
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].is_done):
            invocation = heapq.heappop(self._heap)[2]
            if not invocation.is_done:
                due.append(invocation)
        return due

    def wait(self, now: float) -> float | None:
        """Seconds until `expired` should be called again; None when there is nothing to watch."""
        if self.unsorted:
            return TICK
        return max(self._heap[0][0] - now, 0.0) if self._heap else None


class Limits(Struct, frozen=True):
    """Bounds of the call table. A new call over a bound is refused, mostly with `overloaded`. Results always pass."""

    depth: int = 32
    waiting_per_function: int = 1_000
    calls_per_peer: int = 16_384
    unsent_bytes: int = 8 * 1024 * 1024  # in the outbox of one peer, not yet taken by its transport
    attempts: int = 3  # of one idempotent call whose callees keep dying
