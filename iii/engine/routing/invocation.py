"""One call on its way, and the heap of deadlines. Pure.

MERGED: The bounds of the in-flight table. Pure.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from iii.engine.routing.peer import Peer
    from iii.engine.routing.registry import Function

# A call that lives shorter than this never enters the heap: most calls end within it.
TICK = 0.02


class Invocation(Struct, gc=False, eq=False):
    """A call between its arrival and its outcome.

    `caller` is None when nobody waits for the outcome (void calls, callers that left or gave up), `origin` always
    says who made the call; `callee` is None until it is dispatched. `line` is what the callee gets, kept to hand
    it to another instance.
    """

    id: str
    function: Function
    line: bytes
    origin: Peer
    deadline: float
    timeout: float
    caller: Peer | None = None
    callee: Peer | None = None
    parent: Invocation | None = None
    depth: int = 1
    mark: int = 0  # the callee's byte count right behind this line: written up to here means started
    attempt: int = 1
    receipt: str | None = None  # the enqueue action answers with this instead of the provider's result
    is_waiting: bool = False
    is_abandoned: bool = False  # its outcome is told, but its callee still runs it
    is_done: bool = False

    @property
    def is_started(self) -> bool:
        """Whether the callee's transport has taken the whole line: it may be running."""
        return self.callee is not None and self.callee.written >= self.mark

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

    A new call waits in `_fresh` for one tick before it enters the heap, so that the many short calls cost one
    list append each and the heap never fills with entries that are already done.
    """

    __slots__ = ("_count", "_fresh", "_heap", "add")

    def __init__(self) -> None:
        self._fresh: list[Invocation] = []
        self.add = self._fresh.append  # watches a call from the next tick on; nothing else, it is on the hot path
        self._heap: list[tuple[float, int, Invocation]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._fresh) + len(self._heap)

    @property
    def has_fresh(self) -> bool:
        """Whether there are calls whose deadlines are not in the heap yet."""
        return bool(self._fresh)

    def expired(self, now: float) -> list[Invocation]:
        """Return the calls whose deadline has passed, earliest first, and forget them."""
        self._sort_in()
        due: list[Invocation] = []
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].is_done):
            invocation = heapq.heappop(self._heap)[2]
            if not invocation.is_done:
                due.append(invocation)
        return due

    def _sort_in(self) -> None:
        for invocation in self._fresh:
            if not invocation.is_done:
                self._count += 1
                heapq.heappush(self._heap, (invocation.deadline, self._count, invocation))
        self._fresh.clear()
        if len(self._heap) > 64 and sum(not entry[2].is_done for entry in self._heap) * 2 < len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].is_done]
            heapq.heapify(self._heap)

    def wait(self, now: float) -> float | None:
        """Seconds until `expired` should be called again; None when there is nothing to watch."""
        if self._fresh:
            return TICK
        return max(self._heap[0][0] - now, 0.0) if self._heap else None


class Limits(Struct, frozen=True):
    """Bounds; over one of them a new call is refused with `overloaded`. Results always pass."""

    depth: int = 32
    waiting_per_function: int = 1_000
    calls_per_peer: int = 16_384
    backlog: int = 8 * 1024 * 1024  # bytes sent to a peer that it has not read
    attempts: int = 3  # of one idempotent call whose workers keep dying
