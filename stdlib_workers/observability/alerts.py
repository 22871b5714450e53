"""`AlertEvaluator`: evaluates the alert rules every few seconds and on demand, and keeps their states.

`alert_rules` decides what a rule says of a value; `actions` runs its action. The states are stored before any action
begins: a crash in between loses an action instead of repeating it for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from iii import InvocationError, Logger
from stdlib_workers.observability.config.alert_rules import AlertRule, AlertState, judge
from stdlib_workers.observability.records.call_stats import CallStats
from stdlib_workers.observability.records.metrics import MetricRow, values_of
from stdlib_workers.observability.records.spans import MILLISECOND, SECOND
from stdlib_workers.observability.store import metric_table
from stdlib_workers.observability.store.archive import Archive

EVALUATION_INTERVAL = 10.0
# Actions under way; those of alerts that fire then are left out, and the log says so.
MAX_ACTIONS = 100
RunAction = Callable[[AlertRule, float, int], Coroutine[Any, Any, None]]


class AlertEvaluator:
    """The rules of one project and their states. All methods run on the background loop."""

    def __init__(
        self, archive: Archive, call_stats: CallStats, rules: Sequence[AlertRule], run_action: RunAction
    ) -> None:
        self._archive = archive
        self._call_stats = call_stats
        self._lock = asyncio.Lock()
        self._actions: set[asyncio.Task[None]] = set()
        self._log = Logger(service_name="alerts")
        self._take(rules, run_action, archive.stored_alerts)

    def _take(self, rules: Sequence[AlertRule], run_action: RunAction, states: Mapping[str, AlertState]) -> None:
        self._rules = tuple(rules)
        self.enabled_rules = sum(rule.enabled for rule in rules)
        self._run_action = run_action
        self.states = {rule.name: states.get(rule.name, AlertState()) for rule in self._rules}

    async def take(self, rules: Sequence[AlertRule], run_action: RunAction) -> None:
        """Go by other rules from now on; one that keeps its name keeps its state."""
        async with self._lock:
            self._take(rules, run_action, self.states)

    async def evaluate(self, now: int) -> list[dict[str, Any]]:
        """Evaluate every rule at `now` (nanoseconds), start the actions that are due, return their events."""
        # One evaluation at a time: two at once would both see that the cooldown is over.
        async with self._lock:
            due: list[tuple[AlertRule, float]] = []
            states = dict(self.states)
            for rule in self._rules:
                value = await self._value(rule, now) if rule.enabled else None
                states[rule.name], is_due = judge(rule, self.states[rule.name], value, now // MILLISECOND)
                if is_due and value is not None:
                    due.append((rule, value))
            if states != self.states:
                self.states = states
                await self._archive.keep_alert_states(states)
        for rule, value in due:
            if len(self._actions) >= MAX_ACTIONS:
                self._log.error(f"alert {rule.name}: its action is left out: {MAX_ACTIONS} are still under way")
                continue
            task = asyncio.get_running_loop().create_task(self._run_action(rule, value, now // MILLISECOND))
            self._actions.add(task)
            task.add_done_callback(self._actions.discard)
        outcome = {"firing": True, "timestamp": now // MILLISECOND}
        return [{"name": rule.name, **rule.reading(value), **outcome} for rule, value in due]

    async def _value(self, rule: AlertRule, now: int) -> float | None:
        value = self._call_stats.metrics().get(rule.metric)
        if value is not None or rule.metric.startswith(("iii.invocations.", "iii.workers.")):
            return value
        start = now - int(rule.window_seconds * SECOND)
        rows = await self._archive.run(lambda connection: metric_table.find(connection, start, now, rule.metric))
        return value_in(rows)

    async def run(self, clock: Callable[[], int], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        while True:
            await sleep(EVALUATION_INTERVAL)
            try:
                await self.evaluate(clock())
            except InvocationError:
                # The storage reports its own failures; the next evaluation asks it again.
                continue

    def to_json(self, now: int) -> dict[str, Any]:
        """Return the result of `engine::alerts::list`; `now` in milliseconds."""
        result = {
            "alerts": [self.states[rule.name].to_json(rule) for rule in self._rules],
            "rules": [rule.to_json() for rule in self._rules],
            "firing_count": sum(state.firing for state in self.states.values()),
            "timestamp": now,
        }
        return result if self._rules else {**result, "message": "no alerts are configured"}


def value_in(rows: Sequence[MetricRow]) -> float | None:
    """Return the value of a metric in a window: gauges averaged, counters and histograms summed; None without data."""
    numbers = [number for row in rows for number in values_of(row)]
    if not numbers:
        return None
    return sum(numbers) / len(numbers) if all(row.kind == "gauge" for row in rows) else sum(numbers)
