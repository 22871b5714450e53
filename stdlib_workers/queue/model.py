"""The words of the queue: a job's states and what moves it between them, queues, deliveries. Pure.

A job's life is the table `LIFE`; the SQL of the other modules moves rows along that table only. Of an ordered group
exactly one job, the head, is neither `BEHIND` nor `DEAD`; the others wait `BEHIND` it. So ordering needs no lock and
no bookkeeping: what may start is what is `READY`, in an ordered queue and in any other. So it is with flow control: of
the jobs with the same keys that could start, all but the first wait `BEHIND` it. Jobs that ran together when
their worker crashed are possible poison messages, and one of those runs at a time: so the job that crashes workers is
found, and no other job pays for it. The column `suspect` marks them. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

import orjson

from stdlib_workers.queue.limits import (
    NO_KEYS,
    TABLES,
    Batch,
    ConcurrencyKey,
    Debounce,
    JobKeys,
    RateLimit,
    Throttle,
    key_of,
)


class State(IntEnum):
    """Where a job is. The numbers are in the database: never renumber."""

    READY = 0
    DELAYED = 1  # due later, or retried later
    RUNNING = 2
    BEHIND = 3  # waits for the head of its group
    HELD = 4  # its function is not registered
    DEAD = 5
    LIMITED = 6  # the first of its keys, which have no room for it
    FILLING = 7  # the first of a batch that is neither full nor old enough


class Event(Enum):
    """What happens to a job."""

    CLAIMED = "claimed"
    DUE = "due"
    MISSING = "missing"  # its function is known to be missing
    REGISTERED = "registered"  # its function has been registered
    PROMOTED = "promoted"  # it has become the head of its group, or the first of its keys
    ADMITTED = "admitted"  # its keys have room again, or its batch is full
    REFUSED = "refused"  # its keys have no room after all
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXHAUSTED = "exhausted"  # failed for the last time
    RETURNED = "returned"  # it was not started, or was interrupted: not its own fault
    REDRIVEN = "redriven"
    REMOVED = "removed"  # canceled, purged, discarded


# (state, event) -> the states it may lead to; None is the end. Everything else is impossible.
LIFE: dict[tuple[State, Event], tuple[State | None, ...]] = {
    (State.DELAYED, Event.DUE): (State.READY, State.BEHIND, State.LIMITED, State.FILLING),
    (State.READY, Event.CLAIMED): (State.RUNNING,),
    (State.BEHIND, Event.CLAIMED): (State.RUNNING,),  # with the first of its batch
    (State.READY, Event.MISSING): (State.HELD,),
    (State.READY, Event.REFUSED): (State.LIMITED,),
    (State.LIMITED, Event.ADMITTED): (State.READY,),
    (State.FILLING, Event.ADMITTED): (State.READY, State.LIMITED),
    (State.HELD, Event.REGISTERED): (State.READY, State.DELAYED),
    (State.BEHIND, Event.PROMOTED): (State.READY, State.DELAYED, State.LIMITED, State.FILLING),
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
    rate_limit: RateLimit | None = None
    throttle: Throttle | None = None
    concurrency_key: ConcurrencyKey | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    fair_field: str | None = None
    is_declared: bool = False  # by iii.toml, and not by a call; no key of a configuration
    had_keys: bool = False  # an earlier configuration limited starts, and its jobs may still wait; no key either

    @property
    def attempts(self) -> int:
        """How many attempts may fail before a job is dead."""
        return max(1, self.max_retries)

    @property
    def limits_starts(self) -> bool:
        """Whether a job that could start may have to wait for its keys."""
        return bool(self.throttle or self.concurrency_key or self.batch) or self.fair_field is not None

    @property
    def has_keys(self) -> bool:
        """Whether jobs have keys, or had them."""
        return self.had_keys or self.limits_starts

    @property
    def is_plain(self) -> bool:
        """Whether nothing of flow control looks at this queue's jobs when they are enqueued."""
        return not (self.limits_starts or self.rate_limit or self.debounce)

    def keys_of(self, function_id: str, namespace: str | None, payload: Any) -> JobKeys:
        """Return the keys of a job."""
        function = f"{namespace or ''}/{function_id}"
        concurrency = key_of(payload, self.concurrency_key.field) if self.concurrency_key else None
        throttle = key_of(payload, self.throttle.field) if self.throttle else None
        fair = None if self.fair_field is None else key_of(payload, self.fair_field)
        # A batch is one call, so of one function; so is a debounced job, whose payload replaces another's.
        batch = [function, key_of(payload, self.batch.field)] if self.batch else None
        lane = _text([batch, fair, concurrency, throttle]) if self.limits_starts else None
        debounce = _text([function, key_of(payload, self.debounce.field)]) if self.debounce else None
        rate = key_of(payload, self.rate_limit.field) if self.rate_limit else None
        return JobKeys(lane, concurrency, throttle, fair, debounce, rate)


def _text(keys: list[Any]) -> str:
    return orjson.dumps(keys).decode()


def config_from(table: Mapping[str, Any]) -> QueueConfig:
    """Return a configuration from its table, as users write it and as it is stored."""
    parts = {key: kind(**table[key]) for key, kind in TABLES.items() if table.get(key) is not None}
    return QueueConfig(**{**table, **parts})


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
    keys: JobKeys = NO_KEYS
    waits: bool = False  # the caller wants the result, which outlives the job if it has a `key`


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
    waits: int = 0
    keys: JobKeys = NO_KEYS
    batch: tuple[Delivery, ...] = ()  # of a queue with batches: all jobs of this call, this one first
