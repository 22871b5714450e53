"""Alert rules: reading them, judging a value by them, and the JSON of the outcome. Pure.

An alert fires when its condition holds and its cooldown has passed since it last fired. Without data nothing changes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from stdlib_workers.egress.rules import EgressDenied, Rules
from stdlib_workers.observability.config.sampling import check_table
from stdlib_workers.values import OptionError


class Comparison(NamedTuple):
    """A comparison: how it is written as a symbol, how the contract shows it, what it does."""

    symbol: str
    shown: str
    compare: Callable[[float, float], bool]


COMPARISONS = {
    "greaterthan": Comparison(">", "GreaterThan", operator.gt),
    "greaterthanorequal": Comparison(">=", "GreaterThanOrEqual", operator.ge),
    "lessthan": Comparison("<", "LessThan", operator.lt),
    "lessthanorequal": Comparison("<=", "LessThanOrEqual", operator.le),
    "equal": Comparison("==", "Equal", operator.eq),
    "notequal": Comparison("!=", "NotEqual", operator.ne),
}
_BY_SYMBOL = {entry.symbol: name for name, entry in COMPARISONS.items()}
_KEYS = ("name", "metric", "threshold", "operator", "window_seconds", "cooldown_seconds", "enabled", "action")
# Functions that alerts must not call: their calls would be observed, and fire alerts again.
_BUILT_IN = ("engine::", "observability::")


class AlertAction(NamedTuple):
    """What happens when an alert fires; `target`: the URL of a webhook, the id of a function."""

    kind: str = "log"
    target: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the action as it stands in the configuration."""
        targets = {"webhook": {"url": self.target}, "function": {"path": self.target}}
        return {"type": self.kind, **targets.get(self.kind, {})}


class AlertRule(NamedTuple):
    """One alert rule, by the keys of the configuration."""

    name: str
    metric: str
    threshold: float
    operator: str = "greaterthan"
    window_seconds: float = 60
    cooldown_seconds: float = 60
    enabled: bool = True
    action: AlertAction = AlertAction()

    def reading(self, value: float) -> dict[str, Any]:
        """Return the rule and a value that it was judged by, as events and webhooks show them."""
        return {
            "metric": self.metric,
            "value": value,
            "threshold": self.threshold,
            "operator": COMPARISONS[self.operator].shown,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the rule as `engine::alerts::list` shows it."""
        return {**self._asdict(), "action": self.action.to_json()}


class AlertState(NamedTuple):
    """The outcome of a rule's last evaluation; times in milliseconds, None: never."""

    firing: bool = False
    last_evaluated: int | None = None
    last_triggered: int | None = None
    current_value: float | None = None

    def to_json(self, rule: AlertRule) -> dict[str, Any]:
        """Return the state as `engine::alerts::list` shows it."""
        return {
            "name": rule.name,
            **self._asdict(),
            "threshold": rule.threshold,
            "operator": COMPARISONS[rule.operator].shown,
        }


def judge(rule: AlertRule, state: AlertState, value: float | None, now: int) -> tuple[AlertState, bool]:
    """Return the state after an evaluation of `value`, and whether the action is due. `now` in milliseconds."""
    if value is None or not rule.enabled:
        return state, False
    holds = COMPARISONS[rule.operator].compare(value, rule.threshold)
    has_cooled_down = state.last_triggered is None or now - state.last_triggered >= rule.cooldown_seconds * 1000
    is_due = holds and has_cooled_down
    return AlertState(holds, now, now if is_due else state.last_triggered, value), is_due


def rule_from(fields: Any) -> AlertRule:
    """Return the rule of a table of the configuration. OptionError for a key or value that does not fit."""
    check_table(fields, _KEYS, "an alert")
    name, metric, threshold = _text(fields, "name"), _text(fields, "metric"), _number(fields, "threshold")
    given_operator = fields.get("operator", "greaterthan")
    operator_name = _BY_SYMBOL.get(str(given_operator), str(given_operator).lower().replace("_", ""))
    if operator_name not in COMPARISONS:
        raise OptionError(
            f"observability: operator must be one of {', '.join(COMPARISONS)} or a symbol, got {given_operator!r}"
        )
    enabled = fields.get("enabled", True)
    window, cooldown = _seconds(fields, "window_seconds"), _seconds(fields, "cooldown_seconds")
    if not isinstance(enabled, bool):
        raise OptionError(f"observability: enabled of an alert must be true or false, got {enabled!r}")
    action = _action(fields.get("action", {"type": "log"}))
    return AlertRule(name, metric, threshold, operator_name, window, cooldown, enabled, action)


def url_and_credentials(url: str) -> tuple[str, str]:
    """Return the URL without the `user:password@` that it may have, and that. ValueError for what is no URL."""
    parts = urlsplit(url)
    credentials, _, address = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=address)), unquote(credentials)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise OptionError(f"observability: an alert needs {name}, a string; got {value!r}")
    return value


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OptionError(f"observability: {name} of an alert must be a number, got {value!r}")
    return value


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    value = _number({name: fields.get(name, 60)}, name)
    if value < 0:
        raise OptionError(f"observability: {name} of an alert must not be negative, got {value!r}")
    return value


def _action(fields: Any) -> AlertAction:
    kind = fields.get("type") if isinstance(fields, Mapping) else None
    if kind == "log":
        return AlertAction()
    if kind == "webhook":
        url = fields.get("url")
        if not isinstance(url, str):
            raise OptionError(f"observability: url of a webhook must be an http or https address, got {url!r}")
        try:
            Rules(requires_https=False).target_of(url_and_credentials(url)[0])
        except (EgressDenied, ValueError) as denied:
            # The address itself is not shown: it may hold a secret.
            raise OptionError(f"observability: url of a webhook: {denied}") from None
        return AlertAction(kind, url)
    if kind == "function":
        function_id = fields.get("path")
        if not isinstance(function_id, str) or not function_id or function_id.startswith(_BUILT_IN):
            raise OptionError(f"observability: path of an alert must be a function of the project, got {function_id!r}")
        return AlertAction(kind, function_id)
    raise OptionError(f"observability: the action of an alert has type log, webhook or function, got {fields!r}")
