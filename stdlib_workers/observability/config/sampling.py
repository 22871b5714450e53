"""The sampling of traces: read from the worker's options, told to the engine, and shown. Pure.

The engine decides at the root of a trace whether it is recorded; this worker only says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stdlib_workers.values import OptionError

# Enough to see what a project does during development. Under load the engine's calls stay as fast as without traces.
DEFAULT_TRACES_PER_SECOND = 100


class SamplingRule(NamedTuple):
    """Traces whose root fits `operation` and `service` (`*` and `?`; None: any) are kept at `rate`."""

    rate: float
    operation: str | None = None
    service: str | None = None


class Sampling(NamedTuple):
    """How traces are chosen: the rate limit first, then the first rule that fits, then the default ratio."""

    default: float = 1.0
    rules: tuple[SamplingRule, ...] = ()
    parent_based: bool = True
    max_traces_per_second: float | None = DEFAULT_TRACES_PER_SECOND

    def for_engine(self) -> dict[str, Any]:
        """Return `sampling` of the config with which the engine's telemetry is bound."""
        return {**self._asdict(), "rules": self.to_json()["rules"]}

    def to_json(self) -> dict[str, Any]:
        """Return the part `traces` of `engine::sampling::rules`."""
        return {
            "default_ratio": self.default,
            "rules": [{"operation": rule.operation, "service": rule.service, "rate": rule.rate} for rule in self.rules],
            "parent_based": self.parent_based,
        }


def sampling_from(config: Mapping[str, Any]) -> Sampling:
    """Return the sampling in a worker's options. OptionError for a key or value that does not fit."""
    ratio = ratio_from(config.get("sampling_ratio", 1.0), "sampling_ratio")
    fields = config.get("sampling")
    if fields is None:
        # A project that sets only a ratio wants exactly this ratio: no limit on top of it.
        has_limit = "sampling_ratio" not in config
        return Sampling(ratio, (), has_limit, DEFAULT_TRACES_PER_SECOND if has_limit else None)
    check_table(fields, ("default", "rules", "rate_limit", "parent_based"), "sampling")
    rules = []
    for rule in fields.get("rules") or ():
        check_table(rule, ("operation", "service", "rate"), "a rule of sampling.rules")
        for name in ("operation", "service"):
            if not isinstance(rule.get(name), str | None):
                raise OptionError(f"observability: {name} of a sampling rule must be a string, got {rule[name]!r}")
        rate = ratio_from(rule.get("rate"), "rate of a sampling rule")
        rules.append(SamplingRule(rate, rule.get("operation"), rule.get("service")))
    limit = None
    if fields.get("rate_limit") is not None:
        check_table(fields["rate_limit"], ("max_traces_per_second",), "sampling.rate_limit")
        limit = fields["rate_limit"].get("max_traces_per_second")
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit < 0:
            raise OptionError(f"observability: max_traces_per_second must be a number from 0, got {limit!r}")
        limit = float(limit)
    parent_based = bool(rules) or limit is not None or fields.get("parent_based") is True
    return Sampling(ratio_from(fields.get("default", ratio), "sampling.default"), tuple(rules), parent_based, limit)


def ratio_from(value: Any, name: str) -> float:
    """Return a share from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise OptionError(f"observability: {name} must be a number from 0 to 1, got {value!r}")
    return float(value)


def check_table(fields: Any, names: tuple[str, ...], what: str) -> None:
    """Raise OptionError for what is no table, and for a key that is not among `names`."""
    if not isinstance(fields, dict):
        raise OptionError(f"observability: {what} must be a table, got {fields!r}")
    for name in fields:
        if name not in names:
            raise OptionError(f"observability: {what} has no key {name}; there are {', '.join(names)}")
