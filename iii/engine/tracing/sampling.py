"""Which traces are recorded: the sampling of a `telemetry` binding, and the decisions it makes. Pure.

A decision is made once, where a trace begins; what belongs to a trace follows it. The rate limit decides first, then
the rules, then the default ratio. The ratio depends on the trace id alone: every program that applies the same ratio to
a trace decides the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated

from msgspec import Meta, Struct

Ratio = Annotated[float, Meta(ge=0.0, le=1.0)]
# Functions and services whose rate is remembered.
MAX_CACHED = 4096


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """`rate` for calls whose function id (or span name) and service match; `*` and `?` are wildcards."""

    rate: Ratio
    operation: str | None = None
    service: str | None = None


class Sampling(Struct, frozen=True, forbid_unknown_fields=True):
    """The sampling that a binding configures. See docs/observability.md."""

    default: Ratio = 1.0
    rules: tuple[Rule, ...] = ()
    parent_based: bool = False
    max_traces_per_second: Annotated[float, Meta(gt=0.0)] | None = None


class Sampler:
    """The decisions of one binding. `now` is monotonic seconds."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._limit = sampling.max_traces_per_second
        self._burst = max(1.0, self._limit or 0.0)
        self._tokens = self._burst
        self._filled_at = 0.0
        self._rules = [(_matcher(rule.operation), _matcher(rule.service), rule.rate) for rule in sampling.rules]
        self._rate_of = lru_cache(MAX_CACHED)(self._find_rate)
        self.spent_until = 0.0  # the rate limit lets no trace begin before

    @property
    def is_closed(self) -> bool:
        """Whether no trace ever begins here."""
        return self.sampling.default == 0.0 and not self._rules

    def should_sample(self, trace_id: str, function_id: str, service: str, now: float) -> bool:
        """Whether a trace that begins with this call is recorded."""
        if self._limit is not None and not self._take_token(now):
            return False
        return is_within_ratio(trace_id, self._rate_of(function_id, service))

    def should_follow(self, trace_id: str, *, is_sampled: bool) -> bool:
        """Whether a call is recorded whose trace began outside and came with a decision."""
        follows_parents = self.sampling.parent_based or bool(self._rules) or self._limit is not None
        return is_sampled if follows_parents else is_within_ratio(trace_id, self.sampling.default)

    def share_of(self, calls: int, seconds: float) -> int:
        """About how many of the calls of so many seconds would be recorded, the rules aside."""
        most = calls if self._limit is None else min(calls, seconds * self._limit)
        return round(most * self.sampling.default)

    def _take_token(self, now: float) -> bool:
        assert self._limit is not None
        if self._filled_at:
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._limit)
        self._filled_at = now
        has_token = self._tokens >= 1.0
        self._tokens -= has_token
        if self._tokens < 1.0:
            self.spent_until = now + (1.0 - self._tokens) / self._limit
        return has_token

    def _find_rate(self, function_id: str, service: str) -> float:
        for matches_operation, matches_service, rate in self._rules:
            is_operation = matches_operation(function_id) or matches_operation(f"call {function_id}")
            if is_operation and matches_service(service):
                return rate
        return self.sampling.default


def is_within_ratio(trace_id: str, ratio: float) -> bool:
    """Whether the trace is in the share that `ratio` lets through."""
    # The last 64 bits of the id are compared, as OpenTelemetry does it.
    return ratio >= 1.0 or int(trace_id[16:], 16) < ratio * 2**64


def _matcher(pattern: str | None) -> Callable[[str], object]:
    wildcards = {"*": ".*", "?": "."}
    expression = "".join(wildcards.get(char, re.escape(char)) for char in ("*" if pattern is None else pattern))
    return re.compile(expression, re.DOTALL).fullmatch
