"""The words of the queue: a job's states and what moves it between them, queues, deliveries. Pure.

A job's life is the table `LIFE`; the SQL of the other modules moves rows along that table only. Of an ordered group
exactly one job, the head, is neither `BEHIND` nor `DEAD`; the others wait `BEHIND` it. So ordering needs no lock and
no bookkeeping: what may start is what is `READY`, in an ordered queue and in any other. Jobs that ran together when
their worker crashed are possible poison messages, and one of those runs at a time: so the job that crashes workers is
found, and no other job pays for it. The column `suspect` marks them. Times are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any


class State(IntEnum):
    """Where a job is. The numbers are in the database: never renumber."""

    READY = 0
    DELAYED = 1  # due later, or retried later
    RUNNING = 2
    BEHIND = 3  # waits for the head of its group
    HELD = 4  # its function is not registered
    DEAD = 5


class Event(Enum):
    """What happens to a job."""

    CLAIMED = "claimed"
    DUE = "due"
    MISSING = "missing"  # its function is known to be missing
    REGISTERED = "registered"  # its function has been registered
    PROMOTED = "promoted"  # it has become the head of its group
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXHAUSTED = "exhausted"  # failed for the last time
    RETURNED = "returned"  # it was not started, or was interrupted: not its own fault
    REDRIVEN = "redriven"
    REMOVED = "removed"  # canceled, purged, discarded


# (state, event) -> the states it may lead to; None is the end. Everything else is impossible.
LIFE: dict[tuple[State, Event], tuple[State | None, ...]] = {
    (State.DELAYED, Event.DUE): (State.READY,),
    (State.READY, Event.CLAIMED): (State.RUNNING,),
    (State.READY, Event.MISSING): (State.HELD,),
    (State.HELD, Event.REGISTERED): (State.READY,),
    (State.BEHIND, Event.PROMOTED): (State.READY, State.DELAYED),
    (State.RUNNING, Event.SUCCEEDED): (None,),
    (State.RUNNING, Event.FAILED): (State.DELAYED,),
    (State.RUNNING, Event.EXHAUSTED): (State.DEAD,),
    (State.RUNNING, Event.RETURNED): (State.READY, State.DELAYED, State.DEAD),
    (State.RUNNING, Event.MISSING): (State.HELD,),
    (State.DEAD, Event.REDRIVEN): (State.READY, State.DELAYED, State.BEHIND),
    **{(state, Event.REMOVED): (None,) for state in State if state is not State.RUNNING},
}


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """How a queue delivers. `max_retries` counts all attempts; 0 and 1 both mean one."""

    type: str = "standard"  # or "fifo"
    concurrency: int = 10
    max_retries: int = 3
    backoff_ms: int = 1000
    timeout_ms: int = 1_800_000  # of one attempt; never without
    message_group_field: str | None = None
    priority_field: str | None = None
    max_priority: int | None = None
    on_dead_letter: str = "skip"  # or "block": a dead head stops its group
    key_window_ms: int = 86_400_000  # how long an idempotency key outlives its enqueue
    condition_function_id: str | None = None
    arguments: dict[str, Any] | None = None  # of a subscriber: where its function's arguments are in a message
    is_declared: bool = False  # by iii.toml, and not by a call; no key of a configuration

    @property
    def attempts(self) -> int:
        """How many attempts may fail before a job is dead."""
        return max(1, self.max_retries)


DEFAULT_CONFIG = QueueConfig()


@dataclass(frozen=True, slots=True)
class Queue:
    """A row of `queues`. A topic's queue belongs to one subscriber, whose function all of its jobs call."""

    id: int
    name: str
    config: QueueConfig = DEFAULT_CONFIG
    topic: str | None = None
    namespace: str | None = None
    function_id: str | None = None
    metadata: bytes | None = None  # JSON; of the subscription

    @property
    def blocks(self) -> bool:
        """Whether a dead head stops its group."""
        return self.config.on_dead_letter == "block"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job before it is stored. `data` and `metadata` are JSON."""

    id: str
    function_id: str
    data: bytes
    namespace: str | None = None
    metadata: bytes | None = None
    traceparent: str | None = None
    baggage: str | None = None
    delay_ms: int = 0
    group: str | None = None
    key: str | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt that has been written down and must now be made. `(seq, attempt)` is its fence."""

    seq: int
    attempt: int
    queue: Queue
    started: int
    id: str
    function_id: str
    namespace: str | None
    data: bytes
    metadata: bytes | None
    traceparent: str | None
    baggage: str | None
    group: str | None
    spent: int
    interrupted: int
    possible_poison: int  # the column `suspect`: it ran when its worker crashed, and so did other jobs
    created: int
