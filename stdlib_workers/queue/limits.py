"""Flow control: what the keys of a queue promise, and the decisions that keep it. Pure: values in, values out.

Times are milliseconds. They are read back after a restart, by a clock that may have been set meanwhile.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

# A longer key is kept as its digest: keys stand in indexes.
MAX_KEY = 200
# What a debounced job with `keep = "all"` may hold. A job that is full runs at once, and the next opens another.
MAX_DEBOUNCED = 1_000_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` jobs are accepted in any `period_ms`."""

    limit: int
    period_ms: int
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Throttle:
    """In any window W at most `burst + W * limit / period_ms` attempts start."""

    limit: int
    period_ms: int
    burst: int = 1
    field: str | None = None

    @property
    def interval_us(self) -> int:
        """Microseconds from one start to the next, rounded up: never faster than promised."""
        return -(-self.period_ms * 1000 // self.limit)


@dataclass(frozen=True, slots=True)
class ConcurrencyKey:
    """At most `limit` jobs of a key run at once."""

    field: str
    limit: int


@dataclass(frozen=True, slots=True)
class Debounce:
    """One waiting job for each key; it is due `period_ms` after the last enqueue, `max_wait_ms` after the first."""

    period_ms: int
    max_wait_ms: int | None = None
    field: str | None = None
    keep: str = "last"  # or "all"


@dataclass(frozen=True, slots=True)
class Batch:
    """One call for up to `max_size` jobs of a key, made when so many wait or the oldest has waited `max_wait_ms`."""

    max_size: int
    max_wait_ms: int
    field: str | None = None


# The keys of a queue's configuration that are tables.
TABLES = {
    "rate_limit": RateLimit,
    "throttle": Throttle,
    "concurrency_key": ConcurrencyKey,
    "debounce": Debounce,
    "batch": Batch,
}
KEYS = (*TABLES, "fair_field")


class JobKeys(NamedTuple):
    """The keys of one job, fixed when it is enqueued; None for what its queue does not limit.

    Jobs of one `lane` differ in nothing that flow control looks at: only the first of them is ever considered.
    """

    lane: str | None = None
    concurrency: str | None = None
    throttle: str | None = None
    fair: str | None = None
    debounce: str | None = None
    rate: str | None = None


NO_KEYS = JobKeys()


def key_of(payload: Any, field: str | None) -> str:
    """Return the key at a path such as `customer.id`, as text; an absent one is a key of its own, as is no field."""
    for step in field.split(".") if field is not None else ():
        if not isinstance(payload, dict) or step not in payload:
            return ""
        payload = payload[step]
    if field is None:
        return ""
    text = orjson.dumps(payload, option=orjson.OPT_SORT_KEYS)
    return text.decode() if len(text) <= MAX_KEY else hashlib.sha256(text).hexdigest()


def rate_wait_ms(rate: RateLimit, earlier: int | None, now: int) -> int:
    """Return how long the next job of a key is refused, 0 if it is accepted.

    `earlier`: when the job was accepted that is `limit` before the next one, None without one.
    """
    return 0 if earlier is None else max(0, min(earlier, now) + rate.period_ms + 1 - now)


def free_starts(throttle: Throttle, until_us: int, now: int) -> int:
    """Return how many attempts of a key may start now; `until_us` is what `after_start` returned last, 0 at first."""
    ahead = max(until_us - now * 1000, 0)
    return max(0, (throttle.burst * throttle.interval_us - ahead) // throttle.interval_us)


def after_start(throttle: Throttle, until_us: int, now: int) -> int:
    """Return the time, in microseconds, up to which the starts of a key are taken, after one more at `now`."""
    return max(until_us, now * 1000) + throttle.interval_us


def next_start_ms(throttle: Throttle, until_us: int, now: int) -> int:
    """Return when an attempt of a key may start."""
    return max(now, -(-(until_us - (throttle.burst - 1) * throttle.interval_us) // 1000))


def credible_until(throttle: Throttle, until_us: int, now: int) -> int:
    """Return `until_us` as far ahead as it can be. The clock was set back if it was further; write the new one down."""
    return min(until_us, now * 1000 + throttle.burst * throttle.interval_us)


def debounce_due(debounce: Debounce, first: int, now: int) -> int:
    """Return when a waiting job is due whose first enqueue was at `first` and whose last is at `now`."""
    due = now + debounce.period_ms
    return due if debounce.max_wait_ms is None else min(due, first + debounce.max_wait_ms)
